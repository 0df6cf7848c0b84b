"""Every error this package raises on purpose, in one tree.

    RlhfError
    |- ConfigError (ValueError)      the job file is wrong; the message says what to change
    |  '- CannotFit                  the job is well formed but this machine or cluster can never hold it
    |- DataError (ValueError)        a prompt source or a row of it is wrong
    |  |- PromptTooLong              a prompt leaves no room for one new token
    |  '- ExampleTooLong             a recorded example, prompt and completion, is longer than allowed
    |- ModelError (ValueError)       a path or name is no usable model
    |- WeightError                   a weight version was refused; the worker serves nothing until a good one is adopted
    |  |- FingerprintMismatch        bytes that arrived, or that the engine holds, are not the bytes that were published
    |  |- ManifestMismatch           names, shapes or dtypes are not those of the worker's model
    |  |- ProbeMismatch              the engine's logprobs on the probe tokens differ from the learner's
    |  |- StaleVersion               older than what the worker already serves, or from a learner that was replaced
    |  |- NeedsFullVersion           only a delta was offered, and the worker does not hold what it applies to
    |  '- WeightsUnavailable         the transport no longer has this version
    |- RewardError
    |  '- TooManyInvalid             the share of failed rewards passed `max_invalid_rate`
    |- LearnerError                  the learner cannot do what it was asked
    |  '- StepRefused                loss or gradient are not finite; names the groups to blame
    |- StorageError                  the job's directory cannot be written, or what lies there is not what was written
    |  |- LedgerCorrupt              a ledger or log is damaged before its tail
    |  '- CheckpointCorrupt          a checkpoint's files are not those of its manifest
    |- StageFailed                   a stage of a pipeline ended without success; those after it were not begun
    |- Fenced                        another driver has taken the job over; this one must write nothing more
    |- RoleError                     something happened to a role; names role, worker and activity
    |  |- RoleTimeout                it did not answer within its bound
    |  |- RoleHung                   it has work and makes no progress, or does not even tell its status
    |  |- RoleDied                   its process is gone, or its engine crashed
    |  |- BadAnswer                  what it answered cannot be true (counts, versions, log-probabilities)
    |  |- NotServing                 it was asked to generate before it holds verified weights
    |  '- BudgetSpent                it was replaced too often; the message holds the last cause and log lines
    |- ServiceError                  the service refused; carries status, code and request id of its answer
    |  |- ServiceAway                it did not answer, or cannot now, or nobody has said where it is
    |  |- NotAuthorized              it knows no such token, or the token may not do this
    |  |- NotOnService               what was named does not exist there
    |  '- BadRequest                 what was sent is wrong: a job file, an override, a field
    '- Interrupted                   the user asked the job to stop

All of them survive pickling: an actor raises, the driver catches the same type with the same fields.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RlhfError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one message fit for a person."""


class ConfigError(RlhfError, ValueError):
    pass


class CannotFit(ConfigError):
    pass


class DataError(RlhfError, ValueError):
    pass


class PromptTooLong(DataError):
    pass


class ExampleTooLong(DataError):
    pass


class ModelError(RlhfError, ValueError):
    pass


class WeightError(RlhfError):
    pass


class FingerprintMismatch(WeightError):
    pass


class ManifestMismatch(WeightError):
    pass


class ProbeMismatch(WeightError):
    pass


class StaleVersion(WeightError):
    pass


class NeedsFullVersion(WeightError):
    pass


class WeightsUnavailable(WeightError):
    pass


class RewardError(RlhfError):
    pass


class TooManyInvalid(RewardError):
    pass


class LearnerError(RlhfError):
    pass


class StepRefused(LearnerError):
    """`request_ids` are of the groups whose numbers are not finite; none where no group alone is to blame."""

    def __init__(self, message: str, *, request_ids: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.request_ids = tuple(request_ids)

    def __reduce__(self):
        return _rebuild_step_refused, (str(self), self.request_ids)


def _rebuild_step_refused(message: str, request_ids: tuple[int, ...]) -> StepRefused:
    return StepRefused(message, request_ids=request_ids)


class StorageError(RlhfError):
    pass


class LedgerCorrupt(StorageError):
    pass


class CheckpointCorrupt(StorageError):
    pass


class StageFailed(RlhfError):
    pass


class Fenced(RlhfError):
    pass


class RoleError(RlhfError):
    """`role` is what it is for, `worker_id` which one, `activity` what it was doing."""

    def __init__(self, message: str, *, role: str = "", worker_id: str = "", activity: str = "") -> None:
        super().__init__(message)
        self.role = role
        self.worker_id = worker_id
        self.activity = activity

    def __reduce__(self):
        return _rebuild_role_error, (type(self), str(self), self.role, self.worker_id, self.activity)


def _rebuild_role_error(kind: type[RoleError], message: str, role: str, worker_id: str, activity: str) -> RoleError:
    return kind(message, role=role, worker_id=worker_id, activity=activity)


class RoleTimeout(RoleError):
    pass


class RoleHung(RoleError):
    pass


class RoleDied(RoleError):
    pass


class BadAnswer(RoleError):
    pass


class NotServing(RoleError):
    pass


class BudgetSpent(RoleError):
    pass


class ServiceError(RlhfError):
    """`status` is HTTP's and 0 without an answer; `code` is for programs, `request_id` for the service's log."""

    def __init__(self, message: str, *, status: int = 0, code: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id


class ServiceAway(ServiceError):
    pass


class NotAuthorized(ServiceError):
    pass


class NotOnService(ServiceError):
    pass


class BadRequest(ServiceError):
    pass


class Interrupted(RlhfError):
    pass


def did_you_mean(wrong: object, known: Iterable[str]) -> str:
    """The hint of a message that names an unknown word: the nearest known one, or nothing when none is near.

    >>> did_you_mean("vadre", ["vader", "length"])
    " (did you mean 'vader'?)"
    """
    close = difflib.get_close_matches(str(wrong), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
