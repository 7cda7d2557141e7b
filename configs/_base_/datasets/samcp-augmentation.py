# Sizes and crops as in DETR's training: short side 480 to 800, or first 400 to 600, cut to 384 to
# 600, and then 480 to 800.
short_sides = [(side, 1333) for side in range(480, 801, 32)]
resize = dict(type='DetRandomChoiceResize', scales=short_sides, keep_ratio=True)
resize_first = dict(
    type='DetRandomChoiceResize',
    scales=[(400, 65536), (500, 65536), (600, 65536)],
    keep_ratio=True,
)
crop = dict(type='DetRandomCrop', crop_type='absolute_range', crop_size=(384, 600))
