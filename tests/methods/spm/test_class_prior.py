"""The class prior is that of the classes, whichever is known first."""

import pytest
import torch
from drop_in import build as build_in
from prompted import prompted_segmentor

from mmprompt.common.class_prior import save_class_prior
from mmprompt.common.errors import UserError


def test_the_class_prior_is_that_of_the_classes(tmp_path):
    config = prompted_segmentor(tmp_path, classes=('road', 'sky'))
    config.backbone.class_prior = str(tmp_path / 'prior.json')
    save_class_prior(tmp_path / 'prior.json', ('road', 'sky'), (30, 10), images=1)
    model = build_in(config, 'mmprompt')
    model.load_base()
    assert model.backbone.class_prior.tolist() == [0.75, 0.25]
    save_class_prior(tmp_path / 'prior.json', ('sky', 'road'), (10, 30), images=1)
    with pytest.raises(UserError, match=r"prior\.json: .*found 'sky' where 'road' is expected"):
        build_in(config, 'mmprompt').load_base()


@pytest.mark.parametrize('read_first', [True, False])
def test_the_class_prior_is_that_of_the_data(read_first, tmp_path):
    config = prompted_segmentor(tmp_path, classes=('road', 'sky'))
    del config.classes
    config.backbone.class_prior = str(tmp_path / 'prior.json')
    save_class_prior(tmp_path / 'prior.json', ('sky', 'road'), (10, 30), images=1)

    def use(classes):
        model = build_in(config, 'mmprompt')
        steps = [model.load_base, lambda: model.check_dataset(dict(classes=classes))]
        for step in steps if read_first else steps[::-1]:
            step()
        return model

    assert use(('sky', 'road')).backbone.class_prior.tolist() == [0.25, 0.75]
    with pytest.raises(UserError, match=r"prior\.json: .*found 'sky' where 'road' is expected"):
        use(('road', 'sky'))


def test_a_learned_class_prior_is_not_that_of_the_file(tmp_path):
    """A prompt brings its own, and the names of the file no longer matter."""
    config = prompted_segmentor(tmp_path, classes=('road', 'sky'))
    state = build_in(config, 'mmprompt').state_dict()
    del config.classes
    config.backbone.class_prior = str(tmp_path / 'prior.json')
    save_class_prior(tmp_path / 'prior.json', ('sky', 'road'), (10, 30), images=1)
    model = build_in(config, 'mmprompt')
    model.load_base()
    model.load_state_dict(state)
    model.check_dataset(dict(classes=('road', 'sky')))
    assert torch.equal(model.backbone.class_prior, state['backbone.class_prior'])
