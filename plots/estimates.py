"""The statistics: plain arrays in, numbers out.

One analysis for all tables: the probability of improvement over clip, with all seeds and each task of the same weight,
and its 95 % stratified bootstrap interval (Agarwal et al. 2021, arXiv 2108.13264). Beside it stand means with Welch's
test, corrected by Holm over the tests of a table.
"""

from typing import NamedTuple

import numpy as np
from numpy.polynomial import Polynomial
from scipy.stats import bootstrap, f, norm, ttest_ind, ttest_ind_from_stats

LEVEL = 0.05


def mean_score(*tasks, axis=-1):
    """The mean over tasks of the mean over the seeds along axis."""
    return np.mean([task.mean(axis) for task in tasks], axis=0)


def improvement(*tasks, axis=-1):
    """The chance that a run of one variant returns more than one of the other, a tie counting half, averaged over
    tasks.

    The first half of tasks holds the returns of the one variant, an array a task with the seeds along the last axis,
    the second half those of the other on the same tasks.
    """
    half = len(tasks) // 2
    chances = []
    for ours, theirs in zip(tasks[:half], tasks[half:], strict=True):
        signs = np.sign(ours[..., :, None] - theirs[..., None, :])
        chances.append((signs / 2 + 0.5).mean((-2, -1)))
    return np.mean(chances, axis=0)


def improvement_p(*tasks):
    """p of the stratified Wilcoxon test (van Elteren 1960) that on each task both variants have one distribution, so
    that improvement, of these tasks, is 0.5: two-sided, by the normal approximation, without a correction for ties."""
    half = len(tasks) // 2
    sizes = [(len(ours), len(theirs)) for ours, theirs in zip(tasks[:half], tasks[half:], strict=True)]
    variance = sum((m + n + 1) / (12 * m * n) for m, n in sizes) / half**2
    return float(2 * norm.sf(abs(improvement(*tasks) - 0.5) / np.sqrt(variance)))


def interval(statistic, samples, level=1 - LEVEL):
    """A statistic of some samples and both ends of its bootstrap interval (of 95 %, or of another level), stratified:
    each sample is drawn anew by itself. The ends are NaN where a sample has one seed alone."""
    value = float(statistic(*samples))
    if min(len(sample) for sample in samples) < 2:
        return value, np.nan, np.nan
    options = {"vectorized": True, "method": "percentile", "n_resamples": 5000, "batch": 1000}
    options |= {"confidence_level": level, "rng": np.random.default_rng(0)}
    ends = bootstrap(samples, statistic, **options).confidence_interval
    return value, float(ends.low), float(ends.high)


def welch(first, second):
    """The p value of Welch's test that two samples have one mean; NaN if either has fewer than two values."""
    if min(len(first), len(second)) < 2:
        return np.nan
    return float(ttest_ind(first, second, equal_var=False).pvalue)


def welch_published(sample, mean, std, n):
    """The same between a sample and a published one, of which mean, standard deviation (divisor n) and n are known."""
    if len(sample) < 2:
        return np.nan
    published = (mean, std * np.sqrt(n / (n - 1)), n)
    test = ttest_ind_from_stats(np.mean(sample), np.std(sample, ddof=1), len(sample), *published, equal_var=False)
    return float(test.pvalue)


def holm(p_values):
    """p values after Holm's correction for their number (Holm 1979); NaN stands for a test that could not be made."""
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values)[: np.isfinite(p_values).sum()]  # NaN comes last
    factors = np.arange(len(order), 0, -1)
    adjusted = np.full(p_values.shape, np.nan)
    adjusted[order] = np.maximum.accumulate(factors * p_values[order]).clip(max=1)
    return adjusted


def fitted_polynomial(places, samples, degree=2):
    """The polynomial with the least squared distance to all values of some samples, each at its place."""
    return Polynomial.fit(np.repeat(places, [len(sample) for sample in samples]), np.concatenate(samples), degree)


def lack_of_fit(places, samples, degree=2):
    """p of the lack-of-fit test (Draper & Smith 1998, section 2.1): whether the means of samples lie further from a
    polynomial of their places than the scatter within the samples explains. NaN where there are too few samples, places
    or values to tell."""
    lack_freedom = len(samples) - degree - 1
    pure_freedom = sum(map(len, samples)) - len(samples)
    pure = sum(((sample - np.mean(sample)) ** 2).sum() for sample in samples)
    if min(lack_freedom, pure_freedom, len(set(places)) - degree) < 1 or pure == 0:
        return np.nan
    fitted = fitted_polynomial(places, samples, degree)(np.asarray(places))
    lack = sum(len(sample) * (np.mean(sample) - value) ** 2 for sample, value in zip(samples, fitted, strict=True))
    return float(f.sf(lack / lack_freedom / (pure / pure_freedom), lack_freedom, pure_freedom))


class Aggregate(NamedTuple):
    """What is said of a variant over all tasks that have anchors; each estimate is a value and both ends of an
    interval."""

    tasks: list
    score: tuple
    improvement: (
        tuple | None
    )  # over the baseline, on the tasks that both have; None for itself and where there is no interval


def aggregates(scores, baseline):
    """{variant: Aggregate} from {variant: {task: scores (seeds,)}}, baseline being the variant to compare with."""
    found = {}
    for variant, of_tasks in scores.items():
        common = [task for task in of_tasks if task in scores.get(baseline, {})]
        improved = None
        if variant != baseline and common:
            samples = [scores[name][task] for name in (variant, baseline) for task in common]
            improved = interval(improvement, samples)
            if np.isnan(improved[1]):  # a single seed says nothing
                improved = None
        found[variant] = Aggregate(list(of_tasks), interval(mean_score, [*of_tasks.values()]), improved)
    return found
