"""Pipelines without truth."""

import pytest

from mmprompt.apis.pipelines import step_name, steps_of, without_truth

STEPS = (
    'LoadImageFromFile', 'mmprompt.LoadPatches', 'mmseg.LoadAnnotations', 'PanopticFromLabels',
    'LoadCocoInstances', 'LoadAnnotationsFromCocoPanoptic', 'LoadCityscapesPanoptic', 'LoadUnits',
    'DetResize', 'PackPatchInputs',
)  # fmt: skip


@pytest.mark.parametrize('wrapped', [False, True])
def test_what_loads_or_makes_truth_is_left_out(wrapped):
    dataset = dict(pipeline=[dict(type=name) for name in STEPS])
    steps = steps_of(dict(dataset=dict(dataset=dataset) if wrapped else dataset))
    names = [step_name(step) for step in without_truth(steps)]
    assert names == ['LoadImageFromFile', 'LoadPatches', 'DetResize', 'PackPatchInputs']
    names = [step_name(step) for step in without_truth(steps, keep=())]
    assert names == ['DetResize', 'PackPatchInputs']
    assert steps_of(None) == steps_of(dict(dataset=dict(type='A'))) == []


def test_of_several_data_sets_it_is_the_pipeline_of_the_first():
    parts = [dict(pipeline=[dict(type=name)]) for name in ('A', 'B')]
    loader = dict(dataset=dict(type='Repeat', dataset=dict(type='ConcatDataset', datasets=parts)))
    assert steps_of(loader) == [dict(type='A')]
