"""Bundles from elsewhere whose checksums fit: what they may not do, and that it is a BundleError."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Regex, Tokenizer, models, normalizers

from tansaku import Bundle, BundleError, Encoder, TextRules
from tansaku.onnx_export.encode import external_data
from tansaku.onnx_export.encode.bundle import write_bundle
from tansaku.onnx_export.encode.external_data import names_other_files
from tansaku.onnx_export.encode.find_bundle import DEFAULT_BUNDLE
from tansaku.onnx_export.encode.growth import MAX_GROWTH, growth
from tansaku.onnx_export.encode.tokenize import tokenizer_errors

from .test_encoder import DIM, DOCUMENT, ID, PIECES, QUERY, TABLE, graph, make_bundle


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as raised:
        Encoder.load(folder, threads=1)
    assert str(folder) in str(raised.value)
    return str(raised.value)


def verdict(path: Path) -> str:
    try:
        return "more files" if names_other_files(path) else "one file"
    except ValueError as error:
        return "no ONNX file" if "no ONNX file" in str(error) else str(error)


def outside(tensor: TensorProto, place: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": place, "offset": "0", "length": str(TABLE.nbytes)}.items():
        tensor.external_data.add(key=key, value=value)


class TestExternalWeights:
    @pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "{above}/weights.bin", "./a/../weights.bin"])
    def test_are_refused_whatever_their_path(self, tmp_path, place):
        (tmp_path / "weights.bin").write_bytes(TABLE.tobytes())
        model = graph()
        outside(model.graph.initializer[0], place.format(above=tmp_path))
        folder = make_bundle(tmp_path / "bundle", model=model)
        (folder / "weights.bin").write_bytes(TABLE.tobytes())
        assert "keeps its weights in other files" in refusal(folder)
        write_bundle(folder, Bundle("mean", DIM, "float32", QUERY, DOCUMENT))  # lists the file
        assert "keeps its weights in other files" in refusal(folder)

    def test_are_refused_in_query_weights_too(self, tmp_path):
        model = graph()
        outside(model.graph.initializer[0], "weights.bin")
        folder = make_bundle(tmp_path / "bundle")
        (folder / "query_weights.onnx").write_bytes(model.SerializeToString())
        write_bundle(folder, Bundle("mean", DIM, "float32", QUERY, DOCUMENT, query_weights="query_weights.onnx"))
        assert "query_weights.onnx: keeps its weights in other files" in refusal(folder)

    def test_are_found_wherever_a_tensor_may_stand(self, tmp_path):
        tensor = numpy_helper.from_array(TABLE, "t")
        outside(tensor, "weights.bin")
        sparse = onnx.SparseTensorProto(values=tensor)
        inner = helper.make_graph([], "inner", [], [], [tensor])
        attributes = [
            helper.make_attribute("a", tensor),
            helper.make_attribute("a", [tensor]),
            helper.make_attribute("a", sparse),
            helper.make_attribute("a", inner),
            helper.make_attribute("a", [inner]),
        ]
        places = [
            onnx.GraphProto(initializer=[tensor]),
            onnx.GraphProto(sparse_initializer=[onnx.SparseTensorProto(indices=tensor)]),
            *(onnx.GraphProto(node=[onnx.NodeProto(attribute=[attribute])]) for attribute in attributes),
        ]
        found = [onnx.ModelProto(graph=place) for place in places]
        found.append(onnx.ModelProto(functions=[onnx.FunctionProto(node=[onnx.NodeProto(attribute=attributes[:1])])]))
        found.append(onnx.ModelProto(training_info=[onnx.TrainingInfoProto(algorithm=inner)]))
        for number, model in enumerate(found):
            path = tmp_path / f"{number}.onnx"
            path.write_bytes(model.SerializeToString())
            assert names_other_files(path), number
        assert not names_other_files(DEFAULT_BUNDLE / "model.onnx")

    def test_the_ways_to_a_tensor_are_those_of_onnx(self):
        """Compared with onnx's own description of the format, so that a new way is noticed."""
        messages: dict[str, Any] = {"ModelProto": onnx.ModelProto.DESCRIPTOR}
        while more := {
            inner.name: inner
            for message in messages.values()
            for inner in (field.message_type for field in message.fields)
            if inner is not None and inner.name not in messages
        }:
            messages |= more
        within = {
            name: {field.number: field.message_type.name for field in message.fields if field.message_type is not None}
            for name, message in messages.items()
        }
        leading = {"TensorProto"}
        while more_names := {n for n, inner in within.items() if leading & {*inner.values()}} - leading:
            leading |= more_names
        expected = {n: {number: to for number, to in within[n].items() if to in leading} for n in leading}
        assert expected == external_data.FIELDS
        of_tensor = TensorProto.DESCRIPTOR.fields_by_name
        assert of_tensor["external_data"].number == external_data.EXTERNAL_DATA
        assert of_tensor["data_location"].number == external_data.DATA_LOCATION

    def test_deep_nesting_and_long_numbers_end(self, tmp_path):
        content = b""
        for _ in range(3_000):
            length, size = len(content), b""
            while length > 0x7F:
                size, length = size + bytes([length & 0x7F | 0x80]), length >> 7
            content = b"\x32" + size + bytes([length]) + content  # an attribute's graph, and so on
        path = tmp_path / "a.onnx"
        for data in (content, b"\xff" * 1_000, b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x3b", b"ORTM" * 9):
            path.write_bytes(data)
            assert verdict(path) in ("one file", "no ONNX file")

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
    def test_a_damaged_graph_is_read_or_refused(self, tmp_path_factory, at, put):
        data = bytearray(graph().SerializeToString())
        at %= len(data)
        data[at : at + len(put)] = put
        path = tmp_path_factory.mktemp("damaged") / "a.onnx"
        path.write_bytes(data)
        verdict(path)


class TestGraphs:
    @pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
    def test_that_give_no_finite_numbers_are_refused(self, tmp_path, number):
        model = graph()
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(TABLE * np.float32(number), "table"))
        assert "returns NaN or infinity" in refusal(make_bundle(tmp_path / "bundle", model=model))

    def test_of_which_one_token_is_not_finite_are_refused_when_it_comes(self, tmp_path):
        model, table = graph(), TABLE.copy()
        table[ID["検"]] = np.nan
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
        encoder = Encoder.load(make_bundle(tmp_path / "bundle", model=model), threads=1)
        assert len(encoder.encode_queries(["索"])) == 1
        for encode in (encoder.encode_queries, encoder.encode_documents):
            with pytest.raises(BundleError, match="mean: the graph returns NaN"):
                encode(["索", "検"])

    @pytest.mark.parametrize(
        "made",
        [
            helper.make_node("Transpose", ["mixed"], ["token_vectors"], perm=[1, 0, 2]),
            helper.make_node("Concat", ["mixed", "mixed"], ["token_vectors"], axis=1),
            helper.make_node("Concat", ["mixed", "mixed"], ["token_vectors"], axis=2),
            helper.make_node("ReduceSum", ["mixed"], ["token_vectors"]),
            helper.make_node("SequenceConstruct", ["mixed"], ["token_vectors"]),
            helper.make_node("Cast", ["mixed"], ["token_vectors"], to=TensorProto.DOUBLE),
            helper.make_node("Reshape", ["mixed", "last"], ["token_vectors"]),
            helper.make_node("Gather", ["mixed", "far"], ["token_vectors"], axis=1),
        ],
        ids=lambda node: f"{node.op_type}{len(node.input)}{[a.i for a in node.attribute]}",
    )
    def test_of_another_shape_than_they_say_are_refused(self, tmp_path, made):
        model = graph()
        model.graph.node[-1].CopyFrom(made)
        model.graph.initializer.append(numpy_helper.from_array(np.array([[9_999]]), "far"))
        for dim in model.graph.output[0].type.tensor_type.shape.dim:
            dim.dim_param = f"any{dim.dim_value}{dim.dim_param}"
        refusal(make_bundle(tmp_path / "bundle", model=model))

    def test_without_an_output_are_refused(self, tmp_path):
        model = graph()
        del model.graph.output[:]
        refusal(make_bundle(tmp_path / "bundle", model=model))

    def test_that_cannot_take_some_length_are_refused_when_it_comes(self, tmp_path):
        model = graph()
        model.graph.node[0].input[1] = "near"  # rows of positions, of which there are 8
        model.graph.node.insert(0, helper.make_node("Add", ["input_ids", "places"], ["near"]))
        model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 8), np.int64), "places"))
        folder = make_bundle(tmp_path / "bundle", QUERY, TextRules("", None, 600), model=model)
        message = refusal(folder)
        assert "mean: the graph cannot be run" in message

    @pytest.mark.parametrize("place", ["name", "input", "op"])
    def test_with_names_that_are_no_text_print_nothing(self, tmp_path, capfd, place):
        model = graph()
        if place == "name":
            model.graph.name = "XXXXXX"
        elif place == "input":
            model.graph.input[0].name = "XXXXXX"
        else:
            model.graph.node[0].op_type = "XXXXXX"
        folder = make_bundle(tmp_path / "bundle", model=model)
        (folder / "model.onnx").write_bytes(model.SerializeToString().replace(b"XXXXXX", b"\xff\x9f\x1b[2J"))
        write_bundle(folder, Bundle("mean", DIM, "float32", QUERY, DOCUMENT))
        with contextlib.suppress(BundleError):
            Encoder.load(folder, threads=1)
        assert capfd.readouterr() == ("", "")

    def test_of_query_weights_are_held_to_their_shape(self, tmp_path):
        from tansaku.onnx_export.encode.query_weights import QueryWeights

        nodes = {
            "NaN": [helper.make_node("Mul", ["sums", "bad"], ["weights"])],
            "float32": [helper.make_node("Concat", ["sums", "sums"], ["weights"], axis=0)],
            "cannot be run": [helper.make_node("Reshape", ["sums", "far"], ["weights"])],
        }
        for message, last in nodes.items():
            total = helper.make_node("ReduceSum", ["token_vectors", "axis"], ["sums"], keepdims=1)
            constants = {"axis": np.array([1]), "bad": np.array([np.nan], np.float32), "far": np.array([7, 11])}
            made = helper.make_graph(
                [total, *last],
                "weights",
                [helper.make_tensor_value_info("token_vectors", TensorProto.FLOAT, ["n", DIM])],
                [helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["m", "k"])],
                [numpy_helper.from_array(value, name) for name, value in constants.items()],
            )
            path = tmp_path / "w.onnx"
            onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
            weigh = QueryWeights.load(path, DIM)
            with pytest.raises(BundleError, match=f"query weights: .*{message}"):
                weigh(np.ones((3, DIM), np.float32))


def with_normalizer(folder: Path, normalizer: Any) -> Path:
    make_bundle(folder)
    content = json.loads((folder / "tokenizer.json").read_bytes())
    content["normalizer"] = normalizer
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    write_bundle(folder, Bundle("mean", DIM, "float32", QUERY, DOCUMENT))
    return folder


def replacement(content: str, **pattern: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def charsmap(replaced: bytes) -> dict[str, Any]:
    table = (0).to_bytes(4, "little") + replaced + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}


class TestTokenizers:
    @pytest.mark.parametrize(
        "normalizers",
        [
            [replacement("試" * 1_000, String="試")],
            [replacement("試試", String="試")] * 40,
            [replacement("試験" * 60, Regex=".")],
            [replacement("試", Regex="")] * 40,
            [replacement("試", Regex="(?=試)")] * 40,
            [replacement("試", Regex="$|x*")] * 40,
            [replacement("試", Regex="試{2}?")] * 40,
            [replacement("試", Regex="[[:alpha:]]*")] * 40,
            [replacement("試", Regex="(")] * 40,
            [{"type": "Prepend", "prepend": "試" * 1_000}],
            [{"type": "Sequence", "normalizers": [{"type": "ByteLevel"}] * 30}],
            [charsmap("試".encode() * 1_000)],
            [{"type": "Lowercase"}] * 2_000,
            [7],
            [{"type": "Sequence", "normalizers": 7}],
            [{"type": "Precompiled", "precompiled_charsmap": "a"}],
        ],
    )
    def test_that_make_texts_very_long_are_refused_before_they_run(self, tmp_path, normalizers, monkeypatch):
        monkeypatch.setattr(Tokenizer, "from_file", lambda _: pytest.fail("it was loaded"), raising=False)
        folder = with_normalizer(tmp_path / "bundle", {"type": "Sequence", "normalizers": normalizers})
        assert re.search("times as long|cannot be loaded", refusal(folder))

    def test_of_real_models_stay_far_below(self):
        ours = json.loads((DEFAULT_BUNDLE / "tokenizer.json").read_bytes())
        assert growth(ours) < MAX_GROWTH / 10
        real = [
            {
                "type": "Precompiled",
                "precompiled_charsmap": charsmap("صلى الله عليه وسلم".encode())["precompiled_charsmap"],
            },
            replacement(" ", Regex=" {2,}"),
            replacement("▁", String=" "),
            {"type": "NFKC"},
            {"type": "BertNormalizer"},
            {"type": "Prepend", "prepend": "▁"},
        ]
        assert (
            growth({"normalizer": {"type": "Sequence", "normalizers": real}, "pre_tokenizer": None}) < MAX_GROWTH / 10
        )

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(
        st.lists(
            st.builds(
                lambda p, c: (p, c),
                st.sampled_from(["", "a", "aa", ".", "a*", "a|b", "b+", "(?=a)", "^", r"\b", "a?"]),
                st.text("ab", max_size=4),
            ),
            max_size=3,
        ),
        st.text("ab ", min_size=1, max_size=6),
    )
    def test_no_text_becomes_longer_than_is_said(self, steps, text):
        made = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))  # noqa: S106
        made.normalizer = normalizers.Sequence([normalizers.Replace(Regex(p), c) for p, c in steps])
        normal = made.normalizer.normalize_str(text)
        assert len(normal) <= growth(json.loads(made.to_str())) * (len(text) + 1)


def with_tokenizer(folder: Path, content: str) -> Path:
    make_bundle(folder)
    (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    write_bundle(folder, Bundle("mean", DIM, "float32", QUERY, DOCUMENT))
    return folder


def test_a_text_the_tokenizer_cannot_take_is_a_bundle_error(tmp_path):
    made = Tokenizer(models.WordLevel({piece: i for piece, i in ID.items() if piece != "<unk>"}, unk_token="<none>"))  # noqa: S106
    assert "the tokenizer fails" in refusal(with_tokenizer(tmp_path / "bundle", made.to_str()))


def test_a_panic_of_the_tokenizer_is_a_bundle_error():
    class PanicException(BaseException):  # as pyo3 makes it
        pass

    with pytest.raises(BundleError, match="the tokenizer fails"), tokenizer_errors():
        raise PanicException("index out of bounds")
    with pytest.raises(KeyboardInterrupt), tokenizer_errors():
        raise KeyboardInterrupt


def test_a_pipe_in_place_of_the_json_is_refused(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    (folder / "bundle.json").unlink()
    os.mkfifo(folder / "bundle.json")
    assert "not a file" in refusal(folder)


def test_masks_without_end_are_refused(tmp_path):
    assert len(PIECES) == len(TABLE)
    folder = make_bundle(tmp_path / "bundle")
    content = json.loads((folder / "bundle.json").read_bytes())
    content["query"] |= {
        "max_length": 1 << 40,
        "expansion": {"token": "<mask>", "rule": "fixed", "length": 1 << 40, "attend": False},
    }
    (folder / "bundle.json").write_text(json.dumps(content), encoding="utf-8")
    assert "must be at most 1048576" in refusal(folder)
