"""The 80 things of COCO: names in the order of YOLO labels and of contiguous class numbers."""

COCO_THINGS = tuple(
    """person; bicycle; car; motorcycle; airplane; bus; train; truck; boat; traffic light; fire
    hydrant; stop sign; parking meter; bench; bird; cat; dog; horse; sheep; cow; elephant; bear;
    zebra; giraffe; backpack; umbrella; handbag; tie; suitcase; frisbee; skis; snowboard; sports
    ball; kite; baseball bat; baseball glove; skateboard; surfboard; tennis racket; bottle; wine
    glass; cup; fork; knife; spoon; bowl; banana; apple; sandwich; orange; broccoli; carrot; hot
    dog; pizza; donut; cake; chair; couch; potted plant; bed; dining table; toilet; tv; laptop;
    mouse; remote; keyboard; cell phone; microwave; oven; toaster; sink; refrigerator; book; clock;
    vase; scissors; teddy bear; hair drier; toothbrush""".replace('\n    ', ' ').split('; ')
)
#: COCO planned 91 categories and left these numbers out.
_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
#: `category_id` of each, as in COCO's own files: 1 to 90.
COCO_THING_IDS = tuple(i for i in range(1, 91) if i not in _UNUSED)
