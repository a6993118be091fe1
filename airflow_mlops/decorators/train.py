"""``@task.train``: a plain Python function as a training job on any platform.

Only the way from a decorated function to :class:`~airflow_mlops.operators.training.TrainModelOperator` is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.training.function import FunctionSource, function_call

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["TrainDecoratedOperator", "train_task"]

OURS = ("command", "args", "parameters")
"""Arguments of the operator that are made from the function and its arguments."""


class TrainDecoratedOperator(DecoratedOperator, TrainModelOperator):
    """Run a function as a training job. All other arguments are those of ``TrainModelOperator``.

    The function's source and its arguments as JSON are sent; the image needs Python 3.9 or newer and what the function
    imports, nothing of ours. It may return ``None``, a dict of metrics, or a dict of ``metrics``, ``model_uri`` and
    ``run_id``; on several nodes node 0 reports. What the task returns is the same as of ``TrainModelOperator``.

    :param python_callable: the function
    :param python: the interpreter in the image
    :raises InvalidSpecError: the function cannot be run from its source alone, or an argument is no JSON value
    """

    custom_operator_name = "@task.train"
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        "python",
        *(name for name in TrainModelOperator.template_fields if name not in OURS),
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **TrainModelOperator.template_fields_renderers,
    }

    def __init__(self, *, python_callable: Callable[..., Any], python: str = "python", **kwargs: Any) -> None:
        for name in OURS:
            if name in kwargs:
                raise InvalidSpecError(f"@task.train has no {name!r}: it is made from the function and its arguments.")
        self.source = FunctionSource.of(python_callable)
        self.python = python
        super().__init__(python_callable=python_callable, command=(), **kwargs)

    def execute(self, context: Context) -> Any:
        """Send the function and bring its job to its end."""
        self._encode()
        return super().execute(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on with the job. It may have to be started again, with the same function and arguments."""
        self._encode()
        return super().resume_execution(next_method, next_kwargs, context)

    def _encode(self) -> None:
        call = function_call(self.source, self.python_callable, self.op_args, self.op_kwargs, python=self.python)
        self.command, self.args, self.parameters = call.command, call.args, call.parameters


def train_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Make a function a training job: ``@task.train(backend="kubernetes", conn_id="k8s", image="python:3.12")``.

    :param python_callable: the function
    :param multiple_outputs: push each entry of the result as an XCom of its own. It is never guessed from the
        function's return type: what the task returns is not what the function returns
    :param kwargs: arguments of :class:`TrainDecoratedOperator`
    """
    return task_decorator_factory(
        python_callable,
        multiple_outputs=bool(multiple_outputs),
        decorated_operator_class=TrainDecoratedOperator,
        **kwargs,
    )
