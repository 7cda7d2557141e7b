import pytest
import torch

from mmprompt.common.errors import UserError
from mmprompt.common.text_bank import TextBank

NAMES = ['road', ['sky', 'heaven'], 'car']


def test_round_trip_and_check(tmp_path):
    bank = TextBank(NAMES, torch.randn(4, 8), 'f' * 64)
    loaded = TextBank.load(bank.save(tmp_path / 'bank.safetensors'))
    assert torch.equal(loaded.embeddings, bank.embeddings) and loaded.names == NAMES
    loaded.check(['road', 'sky', 'car'])
    with pytest.raises(UserError, match="class 1 of 3 to be 'car'.*found 'sky'"):
        loaded.check(['road', 'car', 'sky'])
    with pytest.raises(UserError, match="class 2 of 2 to be None.*found 'car'"):
        loaded.check(['road', 'sky'])
    with pytest.raises(UserError, match='expected 4 rows'):
        TextBank(NAMES, torch.randn(3, 8), '')


def test_cached_by_content(tmp_path):
    calls = []

    def get(names=NAMES, templates=('a {}.',), encoder='f'):
        def encode():
            calls.append(names)
            return torch.full((len(names) + 1, 2), float(len(calls)))

        return TextBank.cached(names, templates, encoder, encode, tmp_path).embeddings

    first = get()
    assert torch.equal(get(), first) and len(calls) == 1
    get(templates=('the {}.',))
    get(encoder='g')
    get(names=['road', 'sky', 'car'])
    assert len(calls) == 4
    for file in tmp_path.rglob('*.safetensors'):
        file.write_bytes(file.read_bytes()[:50])
    assert get()[0, 0] == 5 and get()[0, 0] == 5
