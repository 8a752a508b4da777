"""Layers as a teacher: their vectors side by side, and a loss that is small where a student has their similarities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku import InputError
from tansaku.onnx_export.convert.load import load_checkpoint
from tansaku.training.config import LossConfig
from tansaku.training.model.frozen import SplitBackbone
from tansaku.training.model.layer_teacher import LayersTeacher, TokenSimilarities, token_loss
from tansaku.training.model.student import Student

from ..onnx_export.test_backbones import CONFIGS
from ..support import checkpoints
from .test_frozen import TEXTS, backbone, inputs

pytestmark = pytest.mark.integration

TRAINED = 2


def teacher_of(model):
    split = SplitBackbone(model, TRAINED)
    teacher = LayersTeacher(split)
    given = inputs(TEXTS)
    alone = [(split.lower([text], inputs([text])), inputs([text])) for text in TEXTS]
    teacher.centre((lower, of_one, torch.ones(lower.shape[:2], dtype=torch.bool)) for lower, of_one in alone)
    return split, teacher, (split.lower(TEXTS, given), given)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_vectors_are_those_of_the_layers_centred_side_by_side(kind):
    model = backbone(kind)
    with torch.no_grad():
        states = model(**inputs(TEXTS), output_hidden_states=True).hidden_states[-1 - TRAINED : -1]
        below, first = (part[inputs(TEXTS)["attention_mask"].bool()] for part in states)
    _, teacher, given = teacher_of(model)
    vectors = teacher.vectors(*given)[given[1]["attention_mask"].bool()]
    assert vectors.shape[-1] == (1 + TRAINED) * given[0].shape[-1]
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(len(vectors)))
    for part, expected in zip(vectors.chunk(1 + TRAINED, dim=-1), (below, first), strict=False):
        expected = expected - expected.mean(dim=0)
        cosines = torch.nn.functional.cosine_similarity(part, expected)
        assert cosines.min() > 0.99  # what lies below comes in bfloat16


def test_training_the_model_leaves_its_teacher_alone():
    model = backbone("bert")
    split, teacher, given = teacher_of(model)
    before = teacher.vectors(*given)
    for weight in split._upper.parameters():
        weight.data += 1.0
    assert torch.equal(teacher.vectors(*given), before)
    assert not any(weight.requires_grad for weight in teacher._untrained._upper.parameters())


def test_a_model_that_is_not_cut_has_no_such_teacher(tmp_path):
    student = Student(load_checkpoint(checkpoints.stanford(tmp_path / "start", tokenizer="bert")))
    with pytest.raises(InputError, match=r"optimizer\.trained_layers"):
        TokenSimilarities(student, ["日本東京"], LossConfig(kind="tokens"))


def test_fewer_layers_can_teach():
    model = backbone("bert")
    split, teacher, given = teacher_of(model)
    upper = LayersTeacher(split, TRAINED)
    upper._means = teacher._means[1:]
    parts = teacher.vectors(*given).chunk(1 + TRAINED, dim=-1)
    vectors = upper.vectors(*given)
    assert vectors.shape[-1] == TRAINED * given[0].shape[-1]
    expected = torch.cat(parts[1:], dim=-1) * ((1 + TRAINED) / TRAINED) ** 0.5
    torch.testing.assert_close(vectors, expected)


def test_in_batch_negatives_are_all_other_passages_of_the_batch(tmp_path):
    student = Student(load_checkpoint(checkpoints.stanford(tmp_path / "start", tokenizer="bert"))).eval()
    student.freeze_below(1, None, torch.float32)
    asked, texts = ["水火", "木金"], ["日本東京", "大学", "山川田中国", "日本東京"]  # two groups that share a passage
    queries, passages = student.tokenize_queries(asked), student.tokenize_passages(texts)
    negatives = LossConfig(kind="tokens", in_batch_negatives=True, in_batch_weight=0.5, in_batch_scale=3.0)
    plain, with_negatives = (
        TokenSimilarities(student, texts, config) for config in (LossConfig(kind="tokens"), negatives)
    )
    with torch.no_grad():
        scores = torch.cat([student([query], [p])[0] for query in queries for p in passages[:3]]).view(2, 3)
        added = with_negatives(queries, passages) - plain(queries, passages)
    expected = 0.5 * torch.nn.functional.cross_entropy(3.0 * scores, torch.tensor([0, 2]))
    assert float(added) == pytest.approx(float(expected), abs=1e-5)


def plain_loss(students, teachers, asked_kept, found_kept, numbers):
    """The formula in NumPy, one token after the other."""
    errors = []
    for group, passages in enumerate(numbers):
        for token in np.flatnonzero(asked_kept[group]):
            own, same, target = [], [], []
            for passage in passages:
                places = np.flatnonzero(found_kept[passage])
                student = students[1][passage, places] @ students[0][group, token]
                teacher = teachers[1][passage, places] @ teachers[0][group, token]
                own.append(student.max())
                same.append(student[teacher.argmax()])
                target.append(teacher.max())
            own, same, target = (np.array(values) - np.mean(values) for values in (own, same, target))
            errors += list((own - target) ** 2 + 0.5 * (same - target) ** 2)
    return np.mean(errors)


def unit(random, *shape):
    vectors = random.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), groups=st.integers(1, 3), nway=st.integers(1, 4), tokens=st.integers(1, 5))
def test_the_loss_is_that_of_the_formula(seed, groups, nway, tokens):
    random = np.random.default_rng(seed)
    students, teachers = ((unit(random, groups, tokens, dim), unit(random, 6, 7, dim)) for dim in (3, 8))
    asked_kept, found_kept = random.random((groups, tokens)) < 0.7, random.random((6, 7)) < 0.7
    asked_kept[:, 0] = found_kept[:, 0] = True
    numbers = np.stack([random.choice(6, nway, replace=False) for _ in range(groups)])
    (asked, found), (asked_taught, found_taught) = (map(torch.from_numpy, both) for both in (students, teachers))
    kept_and_numbers = [torch.from_numpy(array) for array in (asked_kept, found_kept, numbers)]
    loss = token_loss((asked, asked_taught), (found, found_taught), *kept_and_numbers)
    assert float(loss) == pytest.approx(plain_loss(students, teachers, asked_kept, found_kept, numbers), abs=1e-5)
    taught = token_loss((asked_taught, asked_taught), (found_taught, found_taught), *kept_and_numbers)
    assert float(taught) == pytest.approx(0.0, abs=1e-10)
