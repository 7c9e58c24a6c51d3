"""Facts written into the MLP of one block of a language model: a change of low rank, in closed form
but for what it has to say.

Meng, Bau, Andonian & Belinkov 2022, "Locating and editing factual associations in GPT" (ROME, arXiv
2202.05262, section 3), and Meng, Sharma, Andonian, Belinkov & Bau 2023, "Mass-editing memory in a
transformer" (MEMIT, arXiv 2210.07229, section 4). The last layer of an MLP is an associative memory
of keys k (what it is given) and values W k. With C the second moment of keys of reference rows, the
change ΔW that gives edits' keys K (r, inputs) new values and others' the least, tr(ΔW C ΔWᵀ), is
B A with A = (K C⁻¹ Kᵀ + λ)⁻¹ K C⁻¹: solved in the dual, for all edits at once. B are the changes of
the values.

Two things differ from the papers, for what is written is a text and not one word. A text of which
one vector cannot tell all tokens has a key for each token that would not follow by itself, taken
where it has to follow. And B is found by gradients with the change in its place, not with a vector
put in at one place, so that the divergence from the unchanged model is measured on whole answers to
the prompts of others, through what leaks to their keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from everlearn.base import Batch
from everlearn.learners.editable import Rewrite, TextEdit
from everlearn.learners.text.preference import BLOCK, Pairs
from everlearn.learners.text.projections import hooked, projections, tried
from everlearn.learners.text.writing import LanguageWriter

NEUTRAL = 64
"""Prompts of others whose answers are to stay."""

ROWS = 500
"""Reference rows whose tokens' keys are what C is of."""

PREFIXES, STABLE = 2, 0.5
"""A key is the mean over the prompt alone and with so many beginnings before it; alone only, where
less than this share of the model's own answers stays with something before their prompts."""

RIDGE = 1e-4
"""What is added to the diagonal of C, as a share of its mean."""

SOFT = 1e-3
"""λ of keys that are almost alike, as a share of the mean of the diagonal of K C⁻¹ Kᵀ."""

STEPS, PATIENCE = 120, 15
"""Most steps of Adam, and after how many without a gain of 2 % it ends, once the texts are written;
of a third as many where all other answers stay."""

RATE, GROWTH, NEAR = 0.2, 1.05, 0.3
"""The steps' size at first, in root mean squares of what the layer answers; by how much they grow
until the texts are written (what it takes depends on the layers after it); and as which share of
that they go on."""

DECAY = 1e-3
"""Weight of the values' squares, in mean squares of what the layer answers."""

MARGIN, HELD = 0.5, 0.1
"""By how much the score of a wanted token is to be above the next, and from when on it holds."""


@dataclass(frozen=True, slots=True)
class _Task:
    """What is solved.

    Args:
        edits: texts to be written.
        contexts: (edit, prompt) of each row of `wanted`; the first of an edit is its own prompt.
        wanted: rows whose answers are the texts.
        others: prompts that are answered with `answers` and are to stay so.
        kept: rows of these.
        usual: (t, vocabulary) log probabilities of their tokens.
    """

    edits: Sequence[TextEdit]
    contexts: list[tuple[int, str]]
    wanted: Pairs
    others: list[str]
    answers: list[list[int]]
    kept: Pairs
    usual: Tensor


class RankOne(LanguageWriter):
    """A language model that can be changed so."""

    def solved(self, edits: Sequence[TextEdit], reference: Batch) -> Rewrite | None:
        """See `Writer`. Of a few layers, that one is taken after whose change the most edits hold,
        and of these, the fewest of the others' answers change; none more is tried once all is as
        wanted."""
        names = projections(self.model)
        task = _task(self, edits, reference)
        best: tuple[tuple[float, float], Rewrite] | None = None
        for name in tried(names):
            for lean in (True, False):
                if lean and (name == names[-1] or not any(edit.subject for edit in edits)):
                    continue  # nothing reads the state of a token before from the last block
                rewrite = _at(self, task, name, reference, lean)
                with self.changed(rewrite):
                    kept = self.written(task.others, task.answers)
                success = float(self.holds(edits, rewrite).mean())
                score = success, float(kept.mean()) if len(kept) else 1.0
                if best is None or score > best[0]:
                    best = score, rewrite
                if score == (1.0, 1.0):
                    return rewrite
        return None if best is None else best[1]


def _task(writer: LanguageWriter, edits: Sequence[TextEdit], reference: Batch) -> _Task:
    others = writer.others(reference, edits, NEUTRAL)
    answers = writer.greedy(others)
    starts = writer.beginnings(reference, PREFIXES, seed=0)
    if (writer.stays(others, answers, starts) or 0.0) < STABLE:
        starts = []
    contexts = [
        (place, prompt)
        for place, edit in enumerate(edits)
        for prompt in (edit.prompt, *(f"{start} {edit.prompt}" for start in starts))
    ]
    texts = [writer.tokens_of(edits[place].text) for place, _ in contexts]
    kept = writer.pairs(others, answers)
    with torch.no_grad(), writer.quiet():
        usual = functional.log_softmax(_scores(writer, kept), dim=-1)
    wanted = writer.pairs([prompt for _, prompt in contexts], texts)
    return _Task(edits, contexts, wanted, others, answers, kept, usual)


def _at(writer: LanguageWriter, task: _Task, name: str, reference: Batch, lean: bool) -> Rewrite:
    """The change of one layer.

    Args:
        lean: one key for each edit that has a subject, at its last token.
    """
    keys, size = _keys(writer, task, name, lean)
    moment = _moment(writer, name, reference, len(keys[0]))
    ways = np.linalg.solve(moment, keys.T)
    gram = keys @ ways
    soft = SOFT * gram.diagonal().mean() * np.eye(len(gram))
    ways = np.linalg.solve(gram + soft, ways.T)
    made = torch.tensor(ways, dtype=writer.type, device=writer.device)
    return Rewrite(name, made.cpu().numpy(), _moves(writer, task, name, made, size))


def _keys(
    writer: LanguageWriter, task: _Task, name: str, lean: bool
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], float]:
    """((r, inputs) keys, the root mean square of what the layer answers there)."""
    with torch.no_grad(), writer.quiet():
        inputs, output = _seen(writer, name, task.wanted.tokens)
        gaps = _gaps(_scores(writer, task.wanted), task.wanted)
    owns = task.wanted.asked[:, 1:].nonzero()[:, 0]
    places: list[list[int]] = []
    at: dict[tuple[int, int], int] = {}
    chosen: dict[int, list[int]] = {}
    for row, (edit, prompt) in enumerate(task.contexts):
        start = int(task.wanted.asked[row].int().argmax())
        subject = task.edits[edit].subject
        if edit not in chosen:  # by the prompt alone
            short = (gaps[owns == row] < MARGIN).nonzero()[:, 0].tolist() or [0]
            chosen[edit] = [] if lean and subject else short
        sites = [(token, start - 1 + token) for token in chosen[edit]]
        if subject:
            sites.append((-1, writer.subject_at(prompt, subject)))
        for token, column in sites:
            places.append([row, column, at.setdefault((edit, token), len(at))])
    rows, columns, owner = torch.tensor(places, device=writer.device).T
    own = inputs[rows, columns].to("cpu", torch.float64)
    total = torch.zeros(len(at), own.shape[1], dtype=torch.float64).index_add(0, owner.cpu(), own)
    count = torch.bincount(owner.cpu(), minlength=len(at))[:, None]
    return (total / count).numpy(), float(output[rows, columns].double().square().mean().sqrt())


def _moment(
    writer: LanguageWriter, name: str, reference: Batch, width: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(inputs, inputs) the second moment of the keys of tokens of reference rows."""
    prompts, texts = writer.column(reference, 0), writer.column(reference, 1)
    places = np.unique(np.linspace(0, len(prompts) - 1, min(ROWS, len(prompts))).astype(np.int64))
    moment, count = torch.zeros(width, width, dtype=torch.float64), 0
    for start in range(0, len(places), BLOCK):
        some = places[start : start + BLOCK].tolist()
        answers = [writer.tokens_of(texts[row]) for row in some]
        pairs = writer.pairs([prompts[row] for row in some], answers)
        with torch.no_grad(), writer.quiet():
            inputs, _ = _seen(writer, name, pairs.tokens)
        ends = pairs.tokens.shape[1] - pairs.asked.int().flip(1).argmax(dim=1)
        read = torch.arange(pairs.tokens.shape[1], device=ends.device) < ends[:, None]
        keys = inputs[read].to("cpu", torch.float64)
        moment, count = moment + keys.T @ keys, count + len(keys)
    made = (moment / max(count, 1)).numpy()
    usual = float(made.diagonal().mean()) or 1.0
    made[np.diag_indices_from(made)] += RIDGE * usual
    return np.asarray(made)


def _moves(
    writer: LanguageWriter, task: _Task, name: str, ways: Tensor, size: float
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(outputs, r) changes of values: those after which all texts are written that diverge least
    from the unchanged model, of those that were seen on the way."""
    layer = writer.model.get_submodule(name)
    outputs = _seen(writer, name, task.wanted.tokens[:1, :2])[1].shape[-1]
    values = torch.zeros(outputs, len(ways), dtype=writer.type, device=writer.device)
    values.requires_grad_()
    optimizer = torch.optim.Adam([values], lr=RATE)
    best, kept, since = (-1.0, -torch.inf, 0.0), values.detach().clone(), 0
    rate = RATE

    def add(inputs: Tensor, output: Tensor) -> Tensor:
        change = functional.linear(functional.linear(inputs, ways), size * values)
        return output + change

    for _ in range(STEPS):
        with writer.quiet(), hooked(layer, add):
            missing, worst = _missing(_scores(writer, task.wanted), task.wanted, MARGIN)
            own = missing * len(task.edits) / len(task.contexts)
            far, same = _divergence(writer, task)
        drift = float(far.detach())
        held = float(worst.min())
        score = (1.0, same, -drift) if held >= HELD else (0.0, held, 0.0)
        since = 0 if score[:2] > best[:2] or -score[2] < 0.98 * -best[2] else since + 1
        if score > best:
            best, kept = score, values.detach().clone()
        if best[0] > 0 and since > (PATIENCE if best[1] < 1.0 else PATIENCE // 3):
            break
        optimizer.param_groups[0]["lr"] = NEAR * rate if best[0] > 0 else rate
        rate *= 1.0 if best[0] > 0 else GROWTH
        loss = own + far + DECAY * values.square().sum()
        (values.grad,) = torch.autograd.grad(loss, [values])
        optimizer.step()
    return np.asarray((size * kept).cpu().numpy())


def _divergence(writer: LanguageWriter, task: _Task) -> tuple[Tensor, float]:
    """(KL of the others' answers from what they were, summed over tokens, a mean over prompts, and
    −log π of those of their tokens that are about to change; the share of answers that stay)."""
    if not task.others:
        return torch.zeros((), device=writer.device), 1.0
    scores = _scores(writer, task.kept)
    now = functional.log_softmax(scores, dim=-1)
    apart = (task.usual.exp() * (task.usual - now)).sum()
    leaving, worst = _missing(scores, task.kept, HELD)
    return apart / len(task.others) + leaving, float((worst > 0).double().mean())


def _missing(scores: Tensor, pairs: Pairs, margin: float) -> tuple[Tensor, Tensor]:
    """(−log π of the tokens that are not above others by a margin, summed; (n,) by how much in each
    row the one is that is so least)."""
    gaps, right = _gaps(scores, pairs), pairs.tokens[:, 1:][pairs.asked[:, 1:]]
    surprise = functional.cross_entropy(scores, right, reduction="none")
    rows = pairs.asked[:, 1:].nonzero()[:, 0]
    worst = gaps.new_full((len(pairs.tokens),), torch.inf)
    worst.scatter_reduce_(0, rows, gaps, "amin")
    return (surprise * (gaps < margin)).sum(), worst


def _scores(writer: LanguageWriter, pairs: Pairs) -> Tensor:
    """(t, vocabulary) of the tokens that are asked for, row by row."""
    scores: Tensor = writer.model(pairs.tokens)[:, :-1][pairs.asked[:, 1:]]
    return scores if scores.dtype == torch.float64 else scores.float()


def _gaps(scores: Tensor, pairs: Pairs) -> Tensor:
    """(t,) by how much the right token is above the next."""
    right = pairs.tokens[:, 1:][pairs.asked[:, 1:]][:, None]
    free = scores.detach()
    return free.gather(1, right)[:, 0] - free.scatter(1, right, -torch.inf).amax(dim=1)


def _seen(writer: LanguageWriter, name: str, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer is given for tokens, and what it answers."""
    seen: list[tuple[Tensor, Tensor]] = []

    def note(inputs: Tensor, output: Tensor) -> None:
        seen.append((inputs.detach(), output.detach()))

    with hooked(writer.model.get_submodule(name), note):
        writer.model(tokens)
    return seen[-1]
