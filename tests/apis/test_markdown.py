"""Numbers as text, and the marked blocks of text files."""

import pytest

from mmprompt.apis.markdown import format_numbers, put_into
from mmprompt.common.errors import UserError


def test_mean_and_standard_deviation_of_a_sample():
    # Deviations -3, -1 and 4: (9 + 1 + 16) / 2 = 13.
    assert format_numbers([10.0, 12.0, 17.0], 3) == f'13.0 ± {13**0.5:.1f}'
    assert format_numbers([38.57]) == '38.6'
    assert format_numbers([]) == '-'
    assert format_numbers([10.0, 12.0], 3) == '11.0 ± 1.4 (2 of 3 seeds)'
    assert format_numbers([10.0], 3) == '10.0 (1 of 3 seeds)'


def test_blocks_of_a_text_are_replaced_and_the_rest_is_kept(tmp_path, capsys):
    path = tmp_path / 'results.md'
    path.write_text('# A\n\n<!-- begin x -->\nold\n<!-- end x -->\n\nB\n')
    assert put_into(path, dict(x='| 1 |\\n', y='other')) == ['x']
    assert capsys.readouterr().out == f'{path}: has no block y, which was left out\n'
    once = path.read_text()
    assert once == '# A\n\n<!-- begin x -->\n\n| 1 |\\n\n\n<!-- end x -->\n\nB\n'
    put_into(path, dict(x='| 1 |\\n'))
    assert path.read_text() == once
    with pytest.raises(UserError, match='begin NAME'):
        put_into(path, dict(y='other'))
    with pytest.raises(UserError, match='found none'):
        put_into(tmp_path / 'missing.md', dict(x=''))
