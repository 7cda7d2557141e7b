"""CoOp and LOCN against texts that the encoder tokenises itself."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from toy import CLASSES, DIM, toy_seem

from mmprompt.common.errors import UserError
from mmprompt.foundation.seem.text_encoder import SEEMTextEncoder
from mmprompt.foundation.seem.tokenizer import collect_token_ids, encode_text, tokenize
from mmprompt.methods.ssprompt.words import LOCN, CoOp
from mmprompt.registry import MODELS

MODEL_CONFIGS = Path(__file__).resolve().parents[3] / 'configs' / '_base_' / 'models'
TEMPLATE = 'a photo of a {}.'
SYNONYMS = (('sky',), ('traffic light', 'traffic sign', 'bus'), ('person', 'rider'))


def text_encoder(**keys) -> dict:
    return toy_seem()['text_encoder'] | keys


def weights() -> dict:
    """Weights that tell tokens and places apart; those of a new model hardly do."""
    torch.manual_seed(3)
    encoder = MODELS.build(text_encoder())
    return {k: torch.randn_like(v) * 0.3 for k, v in encoder.state_dict().items()}


def make(kind, names=CLASSES, **keys):
    """A prompt in double precision over the weights above, that has read its names."""
    torch.manual_seed(0)
    prompt = kind(len(names), DIM, text_encoder(), **keys).double()
    prompt.text_encoder.load_state_dict(weights())
    prompt.read(names)
    prompt.fill(torch.zeros(len(names), DIM))
    return prompt


def encoder() -> SEEMTextEncoder:
    found = MODELS.build(text_encoder()).double()
    found.load_state_dict(weights())
    return found.requires_grad_(False)


def same(found, expected) -> None:
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize('names', [CLASSES, SYNONYMS], ids=['names', 'synonyms'])
@pytest.mark.parametrize('class_specific', [False, True])
def test_coop_from_a_photo_of_a_starts_at_the_zero_shot_text(names, class_specific):
    prompt = make(CoOp, names, num_tokens=4, init='a photo of a', class_specific=class_specific)
    same(prompt(), encoder().class_embeddings(names, (TEMPLATE,))[:-1])


def test_locn_starts_at_the_zero_shot_text_of_names_of_one_token():
    single = [name for name in CLASSES if len(encode_text(name)) == 1]
    assert len(single) > 10
    same(make(LOCN, single)(), encoder().class_embeddings(single, (TEMPLATE,))[:-1])


def with_rows(rows: dict[str, torch.Tensor]) -> SEEMTextEncoder:
    """An encoder whose table holds other vectors for some words of one token."""
    found = encoder()
    for word, vector in rows.items():
        (token,) = encode_text(word)
        found.token_embedding.weight[found.token_ids.tolist().index(token)] = vector.detach()
    return found


def encoded(found: SEEMTextEncoder, text: str) -> torch.Tensor:
    return torch.nn.functional.normalize(found(tokenize([text], 24, found.known)), dim=-1)[0]


@pytest.mark.parametrize('class_specific', [False, True])
def test_coop_reads_its_vectors_as_words(class_specific):
    """The learned vectors under the names of other words, in a text of those words."""
    prompt = make(CoOp, num_tokens=2, class_specific=class_specific)
    assert 0.01 < prompt.words.std() < 0.03
    torch.nn.init.normal_(prompt.words)
    rows = prompt()
    for i in (0, 6, 18):  # one token, two tokens, and the last
        first, second = prompt.words[i] if class_specific else prompt.words
        found = with_rows({'photo': first, 'bus': second})
        same(rows[i], encoded(found, f'photo bus {CLASSES[i]}.'))


def test_locn_reads_its_vector_as_one_word():
    """A name of two tokens too: what follows stands one place earlier, and so does the end."""
    prompt = make(LOCN)
    at = CLASSES.index('traffic light')
    traffic, light = encode_text('traffic light')
    table = encoder()
    same(prompt.words[at], table.words(torch.tensor([traffic, light])).mean(0))
    torch.nn.init.normal_(prompt.words)
    rows = prompt()
    for i in (0, at):
        same(rows[i], encoded(with_rows({'bus': prompt.words[i]}), TEMPLATE.format('bus')))


def test_locn_starts_synonyms_at_their_mean():
    prompt, single = make(LOCN, SYNONYMS), make(LOCN, ('person', 'rider', 'bus'))
    same(prompt.words[2], (single.words[0] + single.words[1]) / 2)


def test_another_template():
    single = ('sky', 'bus')
    prompt = make(LOCN, single, template='a {} in the photo')
    same(prompt(), encoder().class_embeddings(single, ('a {} in the photo',))[:-1])


@pytest.mark.parametrize('kind', [CoOp, LOCN])
def test_gradients_reach_the_words_alone(kind):
    prompt = make(kind)
    (prompt() * torch.randn(len(CLASSES), DIM)).sum().backward()
    reached = {name for name, p in prompt.named_parameters() if p.grad is not None}
    assert reached == {'words'} and prompt.words.grad.flatten(0, -2).any(dim=-1).all()
    assert list(prompt.state_dict())[0] == 'words'
    assert all(k == 'words' or k.startswith('text_encoder.') for k in prompt.state_dict())


@pytest.mark.parametrize('kind', [CoOp, LOCN])
def test_without_gradient_the_encoder_runs_once(kind):
    prompt = make(kind)
    calls = []
    prompt.text_encoder.ln_final.register_forward_hook(lambda *args: calls.append(1))

    def answer():
        with torch.no_grad():
            return prompt()

    first = answer()
    assert answer() is first and len(calls) == 1
    prompt.words.data.copy_(torch.randn_like(prompt.words))  # unseen by autograd
    second = answer()
    assert len(calls) == 2 and not torch.allclose(first, second)
    same(second, prompt().detach())
    assert prompt.float() is prompt and answer().dtype == torch.float32
    state = {k: torch.randn_like(v) * 0.3 for k, v in prompt.state_dict().items()}
    before = answer()
    prompt.load_state_dict({**state, 'words': prompt.words})
    assert not torch.allclose(answer(), before)


@pytest.mark.parametrize('keys', [dict(), dict(num_tokens=4, init='a photo of a')])
def test_what_was_restored_is_not_started_again(keys):
    prompt = make(CoOp, **keys)
    learned = torch.randn_like(prompt.words)
    prompt.load_state_dict({**prompt.state_dict(), 'words': learned})
    prompt.read(CLASSES)
    assert torch.equal(prompt.words, learned)


def test_nano_knows_the_words_of_both():
    """Its table is compact, and the tokens of CoOp's and LOCN's sentence are in it."""
    nano = Config.fromfile(str(MODEL_CONFIGS / 'seem-nano.py')).seem.text_encoder
    assert set(collect_token_ids(CLASSES, (TEMPLATE,))) <= set(nano.token_ids)


@pytest.mark.parametrize(
    'make_it, words',
    [
        (lambda: CoOp(3, DIM, text_encoder(), num_tokens=21), r'num_tokens must be 1 to 20 .* 21'),
        (lambda: CoOp(3, DIM, text_encoder(), num_tokens=0), r'num_tokens must be 1 to 20 .* 0'),
        (lambda: CoOp(3, DIM + 4, text_encoder()), r'CoOp\.text_encoder\.dim is 16.* 20 channels'),
        (lambda: LOCN(3, DIM, text_encoder(), template='a photo'), r"one '\{\}', found 'a photo'"),
    ],
)
def test_wrong_arguments(make_it, words):
    with pytest.raises(ValueError, match=words):
        make_it()


def test_wrong_names():
    with pytest.raises(UserError, match=r"CoOp\.init 'a photo of a': expected 5 tokens.*found 4"):
        make(CoOp, num_tokens=5, init='a photo of a')
    with pytest.raises(UserError, match='zeppelin'):
        make(LOCN, ('sky', 'zeppelin'))
    with pytest.raises(UserError, match='LOCN reads class names.*SSPromptSegmentor'):
        LOCN(3, DIM, text_encoder()).read(None)
