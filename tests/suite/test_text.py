"""Texts: to which part a document belongs, tokens packed once, each a target once, and what is refused."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lottalora.data.batches import packed as module
from lottalora.data.batches.packed import packed_once
from lottalora.data.batches.tokens import BLOCK
from lottalora.data.batches.tokens import TokenBatches
from lottalora.data.sources.byte_pairs import trained_once
from lottalora.data.sources.documents import find_source
from lottalora.data.text import LocalText
from lottalora.data.text import WikiText2
from lottalora.data.text import WikiText103

DATA = Path(os.environ.get("LOTTALORA_DATA", Path.home() / ".cache" / "lottalora"))
REAL = DATA / "wikitext" / "wikitext-2-v1"


@pytest.fixture(scope="module")
def tokenizer():
    """Each byte a token behind 300 others, and <s> before each document."""
    return made_tokenizer(300)


def made_tokenizer(others):
    from tokenizers import Tokenizer
    from tokenizers import models
    from tokenizers import pre_tokenizers
    from tokenizers import processors

    names = ["<s>", *(f"other {i}" for i in range(others - 1)), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return made


@pytest.fixture
def text(tmp_path):
    """Write files and give their folder."""

    def write(**files: str) -> Path:
        for name, content in files.items():
            (tmp_path / "text").mkdir(exist_ok=True)
            (tmp_path / "text" / f"{name}.txt").write_text(content)
        return tmp_path / "text"

    return write


def write_parquet(path, **columns):
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path)


def documents(place):
    parts = {"train": [], "validation": [], "test": []}
    for part, document in find_source(place).documents():
        parts[part].append(document)
    return parts


def local(root, tmp_path, **settings):
    return LocalText(root=root and str(root), name="mine", tokenizers=str(tmp_path), batch_size=2, **settings)


def test_parts_are_told_by_the_names_of_files(text):
    assert documents(text(wiki_train="a", wiki_valid="b", wiki_test="c")) == {
        "train": ["a"], "validation": ["b"], "test": ["c"]
    }  # fmt: skip
    assert documents(text(latest="d"))["train"] == ["d", "a"]  # no word of its own


def test_every_twentieth_document_is_held_out_for_each_part_without_a_file(text):
    parts = documents(text(all="\n\n".join(f"document {i}" for i in range(45))))
    assert parts["validation"] == ["document 19\n", "document 39\n"]
    assert parts["test"] == ["document 18\n", "document 38\n"]
    assert len(parts["train"]) == 41
    assert documents(text(test="only"))["test"] == ["only"]
    assert documents(text())["validation"] == ["document 19\n", "document 39\n"]


def test_a_document_is_a_row_or_stands_between_empty_lines(text, tmp_path):
    place = text(train="one\nstill one\n \n\n\ntwo\n", test="t", valid="v")
    write_parquet(place / "train-00000-of-00001.parquet", text=["row\n\none", "", None, " ", "row two"])
    assert documents(place)["train"] == ["row\n\none", "row two", "one\nstill one\n", "two\n"]


def test_a_file_without_empty_lines_is_cut_into_documents_of_bounded_length(text, monkeypatch):
    monkeypatch.setattr("lottalora.data.sources.documents.LONGEST", 10)
    assert documents(text(train="abcd\n" * 5, test="x" * 25, valid="v")) == {
        "train": ["abcd\nabcd\n", "abcd\nabcd\n", "abcd\n"],
        "validation": ["v"],
        "test": ["x" * 10, "x" * 10, "x" * 5],
    }


def test_tokens_are_those_of_each_document_behind_a_begin_and_bytes_those_of_the_text(text, tokenizer):
    place = text(train="ab\n\ncä", valid="v", test="tt")
    parts = packed_once(find_source(place), tokenizer)
    assert parts["train"].tokens.dtype == np.uint16
    tokens = [each.ids for each in tokenizer.encode_batch(["ab\n", "cä"])]
    assert parts["train"].tokens.tolist() == sum(tokens, [])
    assert [each[0] for each in tokens] == [0, 0]
    assert {part: each.text_bytes for part, each in parts.items()} == {"train": 6, "validation": 1, "test": 2}


def test_a_vocabulary_of_more_than_two_bytes_is_kept_in_four(text):
    parts = packed_once(find_source(text(train="ab", valid="v", test="t")), made_tokenizer(2**16))
    assert parts["train"].tokens.dtype == np.uint32
    assert parts["train"].tokens.min() == 0 and parts["train"].tokens.max() > 2**16


def test_a_text_is_packed_once_and_anew_when_it_or_the_tokenizer_changes(text, tokenizer, monkeypatch):
    source = find_source(text(train="ab", valid="v", test="t"))
    made = []
    pack = module.pack
    monkeypatch.setattr(module, "pack", lambda *given: made.append(1) or pack(*given))
    for _ in range(2):
        packed_once(source, tokenizer)
    assert len(made) == 1
    packed_once(source, made_tokenizer(301))
    text(train="ac")
    packed_once(source, tokenizer)
    assert len(made) == 3
    assert not [path for path in source.folder.iterdir() if path.name.endswith(".tmp")]


def test_tokens_are_kept_in_the_users_cache_where_the_text_cannot_be_written_to(
    text, tokenizer, monkeypatch, tmp_path
):
    source = find_source(text(train="ab", valid="v", test="t"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(type(source), "folder", Path("/proc/none"))
    first, again = packed_once(source, tokenizer), packed_once(source, tokenizer)
    assert len(list((tmp_path / "cache" / "lottalora").iterdir())) == 1
    assert first["train"].tokens.tolist() == again["train"].tokens.tolist()


def test_how_far_the_packing_has_come_is_said(text, tokenizer, monkeypatch, caplog):
    monkeypatch.setattr(module, "PATIENCE", 0)
    with caplog.at_level("INFO"):
        packed_once(find_source(text(train="ab", valid="v", test="t")), tokenizer)
    assert re.search(r"0 MB of text, 0.0 million tokens, .* MB/s", caplog.text)


def stream(count):
    return np.arange(count, dtype=np.uint16)


def test_each_token_but_the_first_is_a_target_once_in_the_order_of_the_text():
    batches = TokenBatches(stream(3 * BLOCK + 40), batch_size=2)
    given = list(batches)
    assert [tuple(tokens.shape) for tokens, _ in given] == [(2, BLOCK), (1, BLOCK), (1, 39)]
    assert len(batches) == 3
    assert torch.cat([target.flatten() for _, target in given]).tolist() == list(range(1, 3 * BLOCK + 40))
    assert all(torch.equal(tokens + 1, target) for tokens, target in given)
    assert batches.scored == 3 * BLOCK + 39


@pytest.mark.parametrize("count", [2 * BLOCK + 1, 50])
def test_a_part_of_whole_blocks_has_no_rest_and_a_short_one_is_a_rest(count):
    batches = TokenBatches(stream(count), batch_size=2)
    assert sum(target.numel() for _, target in batches) == count - 1
    assert len(batches) == len(list(batches)) == 1


def test_training_blocks_are_whole_and_their_order_a_function_of_seed_and_epoch():
    def firsts(batches):
        return [tokens[:, 0].tolist() for tokens, _ in batches]

    one, same, other = (TokenBatches(stream(9 * BLOCK), batch_size=4, seed=seed) for seed in (1, 1, 2))
    assert sorted(sum(firsts(one), [])) == [i * BLOCK for i in range(8)]
    assert firsts(one) == firsts(same) != firsts(other)
    one.sampler.set_epoch(1)
    assert firsts(one) != firsts(same)


def test_batches_go_on_where_a_state_says():
    batches = TokenBatches(stream(9 * BLOCK), batch_size=1, seed=0)
    whole = [tokens.tolist() for tokens, _ in batches]
    begun = iter(batches)
    for _ in range(3):
        next(begun)
    state = batches.state_dict()
    fresh = TokenBatches(stream(9 * BLOCK), batch_size=1, seed=0)
    fresh.load_state_dict(state)
    assert [tokens.tolist() for tokens, _ in fresh] == whole[3:]
    assert [tokens.tolist() for tokens, _ in fresh] == whole


def test_the_stand_in_is_the_same_each_time_and_its_bytes_are_its_tokens_without_begins(tmp_path):
    one, same = (local(None, tmp_path, sample=True).read() for _ in range(2))
    assert one.fingerprint() == same.fingerprint()
    assert one.test.text_bytes == (one.test.tokens != 1).sum()
    assert len(one.train_batches(0)) > 100


def test_the_first_tokens_alone_are_used_and_are_another_fingerprint(tmp_path):
    splits, whole = (local(None, tmp_path, sample=True, tokens=tokens).read() for tokens in (1025, None))
    assert sum(target.numel() for _, target in splits.train_batches(0)) == 1024
    assert splits.fingerprint() != whole.fingerprint()


@pytest.mark.parametrize("tokens", [0, 128, 1e6, True])
def test_a_number_of_tokens_that_gives_no_block_is_refused(tmp_path, tokens):
    with pytest.raises(ValueError, match="data.tokens must be null or a whole number above 128"):
        local(None, tmp_path, tokens=tokens)


def test_more_tokens_than_there_are_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data.tokens=99999999 is more than the .* tokens of the training"):
        local(None, tmp_path, sample=True, tokens=99_999_999).read()


def test_a_tokenizer_of_another_vocabulary_is_refused(text, tokenizer, tmp_path):
    (tmp_path / "llama2-32000").mkdir()
    tokenizer.save(str(tmp_path / "llama2-32000" / "tokenizer.json"))
    with pytest.raises(ValueError, match="has a vocabulary of 556 entries, not the 32,000 of TinyLlama"):
        local(text(train="ab"), tmp_path).read()


WORDS = "a rose is a rose is a rose; an orchard has roses and rows of trees \r\n <s> ä€😀"


def test_a_tokenizer_of_the_text_is_that_of_its_training_part_alone_and_loses_no_byte(text):
    place = text(train=WORDS, valid="v", test=WORDS.swapcase())
    tokenizer = trained_once(find_source(place), 280)
    assert tokenizer.get_vocab_size() == 280
    for given in (WORDS, WORDS.swapcase(), "", "\x00 \t\n"):
        tokens = tokenizer.encode(given).ids
        assert tokens[0] == 0 and 0 not in tokens[1:]  # <s> in the text is text
        assert tokenizer.decode(tokens[1:], skip_special_tokens=False) == given
    text(valid="other", test="parts")
    assert trained_once(find_source(place), 280).get_vocab() == tokenizer.get_vocab()
    text(train="xyzzy " * 9 + WORDS)
    assert trained_once(find_source(place), 280).get_vocab() != tokenizer.get_vocab()


def test_a_tokenizer_of_the_text_is_trained_once(text, monkeypatch):
    source, made = find_source(text(train=WORDS, valid="v", test="t")), []
    from lottalora.data.sources import byte_pairs

    train = byte_pairs.train
    monkeypatch.setattr(byte_pairs, "train", lambda *given: made.append(1) or train(*given))
    first, again = (trained_once(source, 280) for _ in range(2))
    assert len(made) == 1 and first.to_str() == again.to_str()
    assert again.encode("<s>").ids[1:] != [0]
    trained_once(source, 270)
    assert len(made) == 2


def test_a_vocabulary_is_what_the_spec_says_and_bytes_are_those_of_the_text(text, tmp_path):
    place = text(train="\n\n".join([WORDS] * 9), valid="vä", test="tst€")
    data = local(place, tmp_path, vocabulary=280)
    assert data.spec.out_dim == 280
    assert data.spec.chance == pytest.approx(np.log(280))
    splits = data.read()
    assert splits.test.text_bytes == 6 and splits.validation.text_bytes == 3
    assert max(part.tokens.max() for part in (splits.train, splits.validation, splits.test)) < 280


@pytest.mark.parametrize("vocabulary", [256, 65_537, 1e3, True, "1024"])
def test_a_vocabulary_that_no_tokenizer_has_is_refused(tmp_path, vocabulary):
    with pytest.raises(ValueError, match="data.vocabulary must be null, for Llama's 32,000 entries, or a"):
        local(None, tmp_path, vocabulary=vocabulary)


def test_a_text_too_short_for_its_vocabulary_is_refused(text):
    with pytest.raises(ValueError, match="makes 25. entries, and data.vocabulary=1024. Add text, or type a"):
        trained_once(find_source(text(train="ab", valid="v", test="t")), 1024)


@pytest.mark.parametrize("files", [{"train": ""}, {"train": " \n\n \n"}, {"train": "a\n\nb", "test": "c"}])
def test_a_part_without_text_is_refused_by_name(text, tokenizer, files):
    with pytest.raises(
        ValueError, match="holds no text for the part (train|validation): it is empty, or has"
    ):
        packed_once(find_source(text(**files)), tokenizer)


def test_a_text_that_fills_no_block_is_refused(text, tokenizer):
    from lottalora.data.batches.tokens import TokenSplits

    parts = packed_once(find_source(text(train="short", valid="v", test="t")), tokenizer)
    with pytest.raises(
        ValueError, match="The training part has 6 tokens, which do not fill one block of 128"
    ):
        TokenSplits(**parts, batch_size=2)


def test_files_that_cannot_be_read_are_refused_by_name(text, tokenizer):
    place = text(valid="v", test="t")
    (place / "train.txt").write_bytes(b"good\n\xff\xfe")
    with pytest.raises(ValueError, match="train.txt is not text in UTF-8"):
        packed_once(find_source(place), tokenizer)
    (place / "train.txt").unlink()
    (place / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="train.parquet is damaged, or no parquet file with a column 'text'"):
        packed_once(find_source(place), tokenizer)
    write_parquet(place / "train.parquet", body=["x"])
    with pytest.raises(ValueError, match="train.parquet is damaged, or no parquet file with a column 'text'"):
        packed_once(find_source(place), tokenizer)


def test_a_place_without_text_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no text at .*nowhere. Type data.root=PATH"):
        find_source(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds no text: no .txt or .parquet file"):
        find_source(tmp_path)


def test_files_that_names_say_are_missing_are_told(text, caplog):
    write_parquet(text(test="t") / "train-00001-of-00004.parquet", text=["a"])
    find_source(text())
    assert "train: 1 of 4 files are there; the text is what they hold." in caplog.text


def test_a_text_of_ones_own_needs_a_place_and_a_name(tmp_path):
    with pytest.raises(ValueError, match="Type data.root=PATH data.name=WORD"):
        local(None, tmp_path).read()
    with pytest.raises(ValueError, match="data.name must be a word of letters, digits, _ and -, got 'a/b'"):
        LocalText(root=None, name="a/b", tokenizers=str(tmp_path), batch_size=2)


@pytest.mark.parametrize(
    ("of", "file"), [(WikiText103, "train-00000-of-00002"), (WikiText2, "train-00000-of-00001")]
)
def test_wikitext_that_is_not_there_and_cannot_be_had_is_refused(tmp_path, monkeypatch, of, file):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    data = of(root=str(tmp_path), tokenizers=str(tmp_path), batch_size=2, variant=of.variants[1])
    with pytest.raises(FileNotFoundError, match=f"WikiText is not at .*-v1/{file}.parquet and could not be"):
        data.read()


@pytest.mark.data
@pytest.mark.skipif(
    not (REAL.exists() and (DATA / "tokenizers" / "llama2-32000").exists()),
    reason=f"WikiText-2 is not at {REAL}",
)
class TestRealText:
    def test_the_tokens_of_wikitext_2_are_its_text_and_nothing_else(self):
        from pyarrow import parquet
        from tokenizers import Tokenizer

        data = WikiText2(
            root=str(REAL.parent),
            tokenizers=str(DATA / "tokenizers"),
            batch_size=32,
            variant="wikitext-2-v1",
        )
        splits = data.read()
        rows = parquet.read_table(REAL / "test-00000-of-00001.parquet")["text"].to_pylist()
        rows = [row for row in rows if row]
        assert splits.test.text_bytes == sum(len(row.encode()) for row in rows)
        begins = np.flatnonzero(splits.test.tokens == 1)
        assert len(begins) == len(rows)
        tokenizer = Tokenizer.from_file(str(DATA / "tokenizers" / "llama2-32000" / "tokenizer.json"))
        for row, tokens in list(zip(rows, np.split(splits.test.tokens, begins[1:]), strict=True))[:300]:
            assert tokenizer.encode(row).ids == tokens.tolist()
        assert 2.8e6 < len(splits.train.tokens) < 2.9e6
