"""What is the same name but for its letters."""

from mmprompt.common.plain_names import plain_name, plain_names


def test_letters_hyphens_and_space_do_not_matter():
    same = ('traffic light', 'Traffic Light', 'traffic-light', ' TRAFFIC_light  ', 'traffic  light')
    assert {plain_name(name) for name in same} == {'traffic light'}
    assert plain_name('trafficlight') != plain_name('traffic light')
    assert plain_names('Car') == {'car'}
    assert plain_names(['Car', 'car', 'auto-mobile']) == {'car', 'auto mobile'}
    assert plain_names([]) == set()
