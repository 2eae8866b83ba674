"""The one set of key names: what an entry of a batch is called, and what shape it has.

Leading axes are written first: `row` is one sample of a batch, `step` one time step of an episode. A batch
holds the keys that its makers put there and its readers ask for; nobody needs all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policysmith.common.errors import DataError

KEYS: dict[str, str] = {
    # experience
    "observation": "[row, (time,) *observation]  what the policy saw, `time` ending at the newest: a vector, "
    "or a nested TensorDict of parts (`state`, `goal`, pictures uint8 [height, width, 3] by camera)",
    "action": "[row, (time,) *action]  what was done, in the environment's units",
    "reward": "[row] or [row, objective]  what the environment returned for the action",
    "next_observation": "[row, *observation]  what was seen after the action",
    "terminated": "[row] bool  the task ended: no value beyond this step",
    "truncated": "[row] bool  the episode was cut (a time limit): the value goes on",
    "success": "[row] bool  the environment's own flag of success at this step",
    "weight": "[row] or [row, time]  what a row or token counts in an average; those of a batch sum to 1",
    # classification
    "label": "[row] or [row, outcome]  what a classifier is to say, from 0 (failure) to 1 (success); of "
    "outcomes how good each is, higher for better: of a pair 1 and 0, the better one first",
    "partner": "[row] int  the row of the batch that a row is mixed with",
    "mix": "[row]  the share of the row itself in that mixture",
    "interpolate": "[row]  where between two rows a gradient is looked at, from 0 to 1",
    # robustness
    "moved_observation": "[row, observation]  where nearby the decision is nearest to being another's",
    "decision": "[row] int  the greedy choice at the observation",
    # diffusion
    "noise": "[row, time, action]  the Gaussian noise mixed into the clean actions",
    "noise_level": "[row, time] int  the level of each position: -1 clean, N-1 pure noise",
    "sigma": "[row]  the size of the noise, where levels are continuous",
    # goals
    "goal": "[row, goal, state]  states to be reached, zero where there is none",
    "has_goal": "[row] bool  whether there is a goal",
    "goal_mask": "[row, goal or 1, state or 1] bool  which goals, or numbers of goals, are told",
    # language
    # preferences, whose rows are lists of outcomes: what is [row, ...] of answers is then [row, outcome, ...]
    "present": "[row, outcome] bool  there is such an outcome: lists may be of unequal length",
    "score": "[row, outcome]  what a reward said of each outcome, in its own units",
    "row_id": "[row] int  which of the preferences, or of a rollout's rows, it is",
    "log_prob": "[row, outcome]  under the policy that learns, with its gradient, the sum over the tokens",
    "group_id": "[row] int  rows with the same id answer the same prompt",
    "token": "[row, time] int  prompt, then answer, then padding",
    "attended": "[row, time] bool  not padding",
    "mask": "[row, time] bool  tokens that the policy wrote, which is what losses see",
    "turn": "[row, time] int  which of the policy's turns in a conversation wrote the token, from 1; 0 where "
    "none did",
    "token_reward": "[row, time]  what was paid at this token: the reward of a turn, on its last one",
    "weights_version": "[row, time] int  of the weights that wrote the token, -1 where none did",
    "behaviour_log_prob": "[row, token]  under the policy that sampled",
    "old_log_prob": "[row, token]  under the weights at the start of the update",
    "reference_log_prob": "[row, token], or the sum over an outcome's, [row, outcome]  under the reference "
    "policy",
    "off_policy": "[row] bool  written on another prompt than the one it is learnt on",
    "imitation": "[row]  what the row's likelihood counts; 0 where the row is learnt by its advantage",
    "advantage": "[row] or [row, token]  how much better than expected",
    "old_value": "[row, token]  what the critic said before the token, when it was drawn",
    "value_target": "[row, token]  what the critic is fitted to",
    "written": "[row, time] bool  all tokens of the answer, where `mask` is those of the last window",
    "correct": "[row] bool  the answer is right",
    "rate": "[row]  the share of right answers to the row's prompt",
}
"""Every key with its shape and meaning."""


def require_keys(batch: Mapping[str, object], keys: Iterable[str], *, reader: str) -> None:
    """Raise `DataError` naming the keys that `reader` needs and `batch` lacks."""
    present = set(batch.keys())  # older TensorDicts have no `in` of their own
    missing = [key for key in keys if key not in present]
    if missing:
        raise DataError(
            f"{reader} needs {', '.join(map(repr, missing))}",
            where=f"a batch with the keys {sorted(map(str, present))}",
            expected="; ".join(f"{key}: {KEYS[key]}" for key in missing if key in KEYS),
        )
