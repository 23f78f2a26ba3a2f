"""What the check of a gradient estimator found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GradientReport:
    """Figures of one gradient estimator on enumerated problems, and which of them are not as they must be.

    None stands for what was not measured: see `check_gradient_estimator`.

    Attributes:
        estimator: What was checked.
        failures: One sentence for each rule that is broken.
        homogeneity_error: Largest relative deviation of grad(s L) / s from grad(L) for s = 0.001 and 65536.
        loss_before: Mean smoothed loss.
        loss_after: The same after a step against the gradient; smaller if the sign is right.
        balance: Largest sum of a row or column of the unary gradients, relative to their largest entry.
        balance_deviation: The same sums' largest number of standard errors over the replicates.
        deterministic: Whether two equal calls gave equal gradients.
        batch_error: Largest relative difference of a batch and its problems one by one.
        rmse: Root mean squared error relative to the smoothed gradient, at `samples` draws.
        samples: Draws of the measured estimates: 4 times those that `rate` starts from.
        rate: Factor by which the spread of the gradient falls with 4 times the samples; 2 for independent noise.
        bias: Norm of the bias, relative to the smoothed gradient.
        bias_standard_error: Of the bias.
        bias_p_value: Probability of such a mean if there were no bias.
        cosine: Of the mean gradient with the smoothed one.
        zero_share: Share of problems whose gradient vanished.
        solver_gap: Largest relative distance of the solver's objectives from the optimum; infinite if a solution is
            none.
    """

    estimator: str
    failures: tuple[str, ...]
    homogeneity_error: float
    loss_before: float
    loss_after: float
    balance: float
    balance_deviation: float
    deterministic: bool
    batch_error: float | None
    rmse: float
    samples: int | None
    rate: float | None
    bias: float
    bias_standard_error: float
    bias_p_value: float
    cosine: float
    zero_share: float
    solver_gap: float | None

    @property
    def passed(self) -> bool:
        """Whether all that was judged is as it must be."""
        return not self.failures

    def __str__(self) -> str:
        """Returns a table of the figures, and the failures below it."""
        rows = {
            "homogeneity error": f"{self.homogeneity_error:.2g}",
            "smoothed loss": f"{self.loss_before:.4g} before, {self.loss_after:.4g} after a step down",
            "balance of rows and columns": f"{self.balance:.2g} ({self.balance_deviation:.2g} standard errors)",
            "deterministic": "yes" if self.deterministic else "no",
            "batch against one by one": _number(self.batch_error),
            "relative RMSE": _number(self.rmse) + ("" if self.samples is None else f" at {self.samples} samples"),
            "spread per 4 times the samples": "not measured" if self.rate is None else f"/ {self.rate:.3g}",
            "relative bias": f"{self.bias:.3g} +- {self.bias_standard_error:.2g}, p = {self.bias_p_value:.2g}",
            "cosine": f"{self.cosine:.3f}",
            "share of zero gradients": f"{self.zero_share:.3g}",
            "gap of the solver": _number(self.solver_gap),
        }
        width = max(map(len, rows))
        verdict = "passed" if self.passed else "failed: " + " ".join(self.failures)
        lines = [self.estimator, *(f"  {name:<{width}}  {text}" for name, text in rows.items()), verdict]
        return "\n".join(lines)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"
