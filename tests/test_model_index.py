"""model-index.yml: what it lists is there, and its figures are those of docs/results.md."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text())


def test_every_collection_has_its_page_and_every_model_its_config():
    collections = {entry['Name'] for entry in INDEX['Collections']}
    assert all((ROOT / entry['README']).is_file() for entry in INDEX['Collections'])
    assert {model['In Collection'] for model in INDEX['Models']} == collections
    for model in INDEX['Models']:
        config = ROOT / model['Config']
        assert config.is_file() and config.stem == model['Name']


def test_every_method_with_configs_is_a_collection():
    names = {entry['Name'].lower().replace('-', '') for entry in INDEX['Collections']}
    methods = {
        p.name for p in (ROOT / 'mmprompt/methods').iterdir() if (p / '__init__.py').exists()
    }
    assert names == methods


def test_figures_are_those_of_the_results():
    text = (ROOT / 'docs/results.md').read_text()
    for model in INDEX['Models']:
        for result in model.get('Results', ()):
            assert all(f'| {value}' in text for value in result['Metrics'].values()), model
