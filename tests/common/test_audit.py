from torch import nn

from mmprompt.common.audit import MANY, describe_audit, trained_parameters


def layers(number: int) -> nn.ModuleDict:
    """`number` linear maps of 3 x 2 weights and 2 biases each, and a frozen one."""
    model = nn.ModuleDict({'body': nn.Sequential(*(nn.Linear(3, 2) for _ in range(number)))})
    model['still'] = nn.Linear(3, 2).requires_grad_(False)
    return model


def test_tensor_by_tensor():
    model = layers(2)
    names = ['body.0.weight', 'body.0.bias', 'body.1.weight', 'body.1.bias']
    assert trained_parameters(model) == dict(zip(names, (6, 2, 6, 2)))
    first, *rest = describe_audit(model).splitlines()
    assert first == 'trained parameters: 16 (frozen: 8)'
    assert [line.split() for line in rest] == [[str(n), k] for k, n in zip(names, (6, 2, 6, 2))]


def test_many_tensors_are_summed_by_their_owners():
    lines = describe_audit(layers(MANY)).splitlines()
    assert len(lines) == 1 + MANY and lines[1].split() == ['8', 'body.0']
    lines = describe_audit(layers(MANY + 1)).splitlines()
    assert [line.split() for line in lines[1:]] == [[str(8 * (MANY + 1)), 'body']]


def test_nothing_trained():
    model = nn.Linear(3, 2).requires_grad_(False)
    assert describe_audit(model) == 'trained parameters: 0 (frozen: 8)'
