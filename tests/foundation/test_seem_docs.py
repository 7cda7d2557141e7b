"""What docs/seem.md says of the public checkpoints is what the code knows of them."""

from pathlib import Path

import pytest

from mmprompt.foundation.seem.public_files import PUBLIC_FILES

DOCS = Path(__file__).resolve().parents[2] / 'docs'


@pytest.mark.parametrize('file', PUBLIC_FILES, ids=lambda file: file.name)
def test_the_table_of_public_files(file):
    rows = (DOCS / 'seem.md').read_text().splitlines()
    row = next(row for row in rows if row.startswith(f'| [{file.name}]'))
    cells = [cell.strip() for cell in row.strip('|').split('|')]
    assert cells == [
        f'[{file.name}]({file.address})',
        file.variant,
        f'{file.size:,}',
        f'`{file.sha256[:16]}…`',
        'loads' if file.supported else 'refused',
    ]
