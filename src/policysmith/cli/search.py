"""Ranking the catalogue for a problem told in plain words.

BM25 over what each entry says, with a rough stemmer. Where the sentence embedder is installed, its ranking
is mixed in by adding reciprocal ranks (Cormack et al. 2009), so that words of like meaning are met too.
"""

from __future__ import annotations

import math
import re
from collections import Counter

from policysmith.common.cache import cache_folder
from policysmith.common.catalogue import System, systems
from policysmith.common.errors import MissingExtraError

MOST = 30
"""How many systems a ranking holds at the most."""

COMMON = frozenset(
    ["a", "an", "and", "are", "as", "be", "by", "for", "in", "is", "it", "my", "of", "on", "or", "the", "to"]
)
"""Words that say nothing about a problem."""


def rank(query: str) -> list[tuple[System, float]]:
    """Systems by relevance to `query`, best first; words alone leave out what shares none with it."""
    documents = {system.name: _text(system) for system in systems()}
    scores = bm25(query, documents)
    order = sorted((name for name in scores if scores[name] > 0), key=lambda name: -scores[name])[:MOST]
    try:
        similar = _by_meaning(query, documents)
    except MissingExtraError:
        pass  # words alone
    else:
        fused: dict[str, float] = dict.fromkeys([*order, *similar], 0.0)
        for ranking in (order, similar):
            for place, name in enumerate(ranking):
                fused[name] += 1 / (60 + place)
        scores, order = fused, sorted(fused, key=lambda name: -fused[name])[:MOST]
    by_name = {system.name: system for system in systems()}
    return [(by_name[name], scores[name]) for name in order]


def bm25(query: str, documents: dict[str, str], *, k: float = 1.5, b: float = 0.75) -> dict[str, float]:
    """Okapi BM25 score of each document (Robertson and Zaragoza 2009, equation 3.15)."""
    counts = {name: Counter(_stems(text)) for name, text in documents.items()}
    lengths = {name: sum(count.values()) for name, count in counts.items()}
    typical = sum(lengths.values()) / len(lengths)
    scores = dict.fromkeys(documents, 0.0)
    for term in set(_stems(query)):
        holding = sum(term in count for count in counts.values())
        rarity = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
        for name, count in counts.items():
            saturation = count[term] + k * (1 - b + b * lengths[name] / typical)
            scores[name] += rarity * count[term] * (k + 1) / saturation
    return scores


def _text(system: System) -> str:
    # Keywords twice: they are the words of people with a problem.
    words = " ".join(system.keywords)
    return f"{system.name} {system.title} {system.summary} {words} {words} {system.family} {system.kind}"


def _stems(text: str) -> list[str]:
    """Words cut to a rough stem, so that 'demonstrations' meets 'demonstration' and 'steering' 'steer'."""
    words = (word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in COMMON)
    return [re.sub(r"(ations?|ings?|ies|ers?|ed|es|s|y|e)$", "", word) or word for word in words]


def _by_meaning(query: str, documents: dict[str, str]) -> list[str]:
    """Names by cosine similarity of sentence embeddings, best first."""
    import torch

    from policysmith.common.saving import load_tree, save_tree
    from policysmith.networks.embedder import SentenceEmbedder

    embed = SentenceEmbedder()
    path = cache_folder() / "catalogue-embeddings.safetensors"
    saved = load_tree(path) if path.is_file() else {}
    if saved.get("documents") != documents:
        saved = {"documents": documents, "embeddings": embed(list(documents.values()))}
        save_tree(path, saved)
    similarity = saved["embeddings"] @ embed([query])[0]
    names = list(documents)
    return [names[i] for i in torch.argsort(similarity, descending=True, stable=True)[:MOST].tolist()]
