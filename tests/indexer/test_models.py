"""The model of an index: found by its fingerprint, kept after upgrades, and changed for another one."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from tansaku import Encoder, Index, InputError, ModelMismatchError, ResumeError, Searcher, read_bundle
from tansaku.indexer.write import build_steps
from tansaku.onnx_export.encode import find_bundle as find_bundle_module
from tansaku.onnx_export.encode.bundle import write_bundle
from tansaku.onnx_export.encode.find_bundle import DEFAULT_BUNDLE, find_bundle, keep_bundle, known_bundles
from tansaku.plugin.cli.main import app

from ..support.fakes import FakeEncoder, NewerEncoder, corpus, small_chunks

pytestmark = pytest.mark.integration

DOCS = corpus(40)


def ranking(db, encoder, query="a b"):
    return [
        (hit.id, pytest.approx(hit.score, abs=1e-6)) for hit in Searcher.open(db, "t", encoder=encoder).search(query)
    ]


@pytest.fixture
def db(tmp_path):
    Index.create(tmp_path / "db", "t", DOCS, encoder=FakeEncoder())
    return tmp_path / "db"


class TestChange:
    def test_gives_the_index_that_the_new_model_makes(self, db, tmp_path):
        index = Index.open(db, "t")
        report = index.rebuild(encoder=NewerEncoder())
        assert (report.rows, index.encoder.bundle.name) == (len(DOCS), "newer")
        assert Index.open(db, "t", encoder=NewerEncoder()).info().model == "newer"
        Index.create(tmp_path / "fresh", "t", DOCS, encoder=NewerEncoder())
        assert ranking(db, NewerEncoder()) == ranking(tmp_path / "fresh", NewerEncoder())
        index.add([{"id": "later", "text": "zzzz"}])
        assert ranking(db, NewerEncoder(), "zzzz")[0][0] == "later"

    def test_the_earlier_model_answers_until_the_swap_and_then_says_what_to_do(self, db):
        searcher = Searcher.open(db, "t", encoder=FakeEncoder())
        before = searcher.search("a b")
        newer = NewerEncoder()
        answers = []
        newer.before_encoding = lambda _: answers.append(searcher.search("a b"))
        Index.open(db, "t").rebuild(encoder=newer)
        assert answers
        assert all(answer == before for answer in answers)
        assert searcher.search("a b") == before
        with pytest.raises(ModelMismatchError, match="rebuild --change-model"):
            searcher.refresh()

    def test_what_others_write_meanwhile_gets_the_new_model_too(self, db):
        newer = NewerEncoder()

        def write(_):
            newer.before_encoding = lambda _: None
            other = Index.open(db, "t", encoder=FakeEncoder())
            other.upsert([{"id": "meanwhile", "text": "qqqq"}])
            other.delete([DOCS[0]["id"]])

        newer.before_encoding = write
        Index.open(db, "t").rebuild(encoder=newer)
        assert len(Index.open(db, "t")) == len(DOCS)
        assert ranking(db, NewerEncoder(), "qqqq")[0][0] == "meanwhile"

    def test_goes_on_after_an_interruption_but_not_with_a_third_model(self, db, monkeypatch):
        newer = NewerEncoder()

        def stop(_):
            if len(newer.encoded) > 20:
                raise KeyboardInterrupt

        small_chunks(monkeypatch, 4)
        monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", 6)
        newer.before_encoding = stop
        with pytest.raises(KeyboardInterrupt):
            Index.open(db, "t").rebuild(encoder=newer)
        assert Index.open(db, "t", encoder=FakeEncoder()).info().model == "fake"
        with pytest.raises(ResumeError):
            Index.open(db, "t").rebuild(encoder=FakeEncoder("third"))
        again = NewerEncoder()
        assert Index.open(db, "t").rebuild(encoder=again).resumed > 0
        assert not set(again.encoded) & set(newer.encoded)
        assert Index.open(db, "t").info().model == "newer"

    def test_rows_that_the_new_model_cuts_are_counted(self, db):
        short = NewerEncoder()
        short.tokenize_documents = lambda texts: [
            dataclasses.replace(FakeEncoder._tokenized(text), truncated=True) for text in texts
        ]
        report = Index.open(db, "t").rebuild(encoder=short)
        assert (report.truncated, len(report.truncated_ids)) == (len(DOCS), 5)

    def test_needs_texts(self, tmp_path):
        vectors = [FakeEncoder().vectors("a")]
        Index.create_from_vectors(tmp_path, "t", [{"id": "a", "text": ""}], vectors)
        with pytest.raises(InputError, match="without a text"):
            Index.open(tmp_path, "t").rebuild(encoder=NewerEncoder())


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """The bundle of an earlier release: the one inside with another rule for documents."""
    folder = tmp_path_factory.mktemp("models") / "earlier"
    shutil.copytree(DEFAULT_BUNDLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    bundle = read_bundle(folder)
    write_bundle(folder, dataclasses.replace(bundle, document=dataclasses.replace(bundle.document, max_length=300)))
    return folder


@pytest.mark.slow
class TestEarlierModels:
    def test_are_found_in_the_folders_of_models(self, earlier, tmp_path, monkeypatch):
        monkeypatch.setenv("TANSAKU_MODELS", str(earlier.parent))
        Index.create(tmp_path, "t", [{"id": "a", "text": "京都の寺"}], encoder=Encoder.load(earlier))
        fingerprint = read_bundle(earlier).fingerprint
        assert Index.open(tmp_path, "t").encoder.bundle.fingerprint == fingerprint
        searcher = Searcher.open(tmp_path, "t")
        assert (searcher.encoder.bundle.fingerprint, searcher.search("寺")[0].id) == (fingerprint, "a")
        for command in ("search", "寺"), ("info",), ("rebuild",):
            done = CliRunner().invoke(app, [*command, "--db", str(tmp_path), "--table", "t"])
            assert done.exit_code == 0, done.output
        monkeypatch.setenv("TANSAKU_MODELS", "")
        with pytest.raises(ModelMismatchError, match=r"was not found.*TANSAKU_MODELS.*rebuild --change-model"):
            Searcher.open(tmp_path, "t")
        done = CliRunner().invoke(app, ["rebuild", "--db", str(tmp_path), "--table", "t", "--change-model"])
        assert done.exit_code == 0, done.output
        assert Searcher.open(tmp_path, "t").search("寺")[0].id == "a"

    def test_may_be_a_bundle_itself_and_what_is_none_is_passed_over(self, earlier, tmp_path, monkeypatch):
        (tmp_path / "empty").mkdir()
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "bundle.json").write_text("{")
        folders = [tmp_path / "nowhere", tmp_path, earlier]
        monkeypatch.setenv("TANSAKU_MODELS", ":".join(map(str, folders)))
        assert [folder for folder, _ in known_bundles()] == [DEFAULT_BUNDLE, earlier]
        assert find_bundle(read_bundle(earlier).fingerprint) == earlier
        assert find_bundle("0" * 16) is None

    @pytest.mark.parametrize("given", [None, "~/models", "~nobody-of-that-name/models"])
    def test_without_a_home_folder_there_is_the_model_inside(self, monkeypatch, given):
        for name in ("HOME", "USERPROFILE", "XDG_DATA_HOME", "TANSAKU_MODELS"):
            monkeypatch.delenv(name, raising=False)
        if given is not None:
            monkeypatch.setenv("TANSAKU_MODELS", given)
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where the user has no entry in /etc/passwd
        assert [folder for folder, _ in known_bundles()] == [DEFAULT_BUNDLE]

    def test_a_folder_that_cannot_be_read_is_passed_over(self, earlier, monkeypatch):
        def is_dir():
            raise PermissionError("a home folder of root's")

        monkeypatch.setattr(find_bundle_module, "_folders", lambda: [SimpleNamespace(is_dir=is_dir), earlier])
        assert [folder for folder, _ in known_bundles()] == [DEFAULT_BUNDLE, earlier]

    def test_copy_of_the_model_inside_is_kept_once(self, tmp_path, monkeypatch):
        kept = keep_bundle(tmp_path / "models")
        assert read_bundle(kept).fingerprint == read_bundle(DEFAULT_BUNDLE).fingerprint
        assert keep_bundle(tmp_path / "models") == kept
        (kept / "model.onnx").write_bytes(b"")
        with pytest.raises(InputError, match="remove it"):
            keep_bundle(tmp_path / "models")
        monkeypatch.setenv("TANSAKU_MODELS", str(tmp_path / "models"))
        listed = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)
        assert [model["folder"] for model in listed["models"]] == [str(DEFAULT_BUNDLE), str(kept)]


def test_other_rules_of_queries_leave_an_index_searchable(db):
    other = FakeEncoder()
    other.bundle = dataclasses.replace(
        other.bundle, query=dataclasses.replace(other.bundle.query, max_length=7, prefix="問: ")
    )
    assert Searcher.open(db, "t", encoder=other).search("a b")
