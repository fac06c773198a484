"""How many records will come: Holt's linear trend, which may only raise what is provided for, once it has proved right.

A forecast is worth as much as its recent errors allow: its mean absolute percentage error is taken off it, and above
30 % it is dropped. Daily patterns are not learned. The smoothing factors are quotients and not exponentials, so that
every machine computes the same bits.
"""

from signalbox.scaling.memory import Forecast

#: Time constants of the level and of the trend. A slow trend does not take noise for one.
LEVEL_S = 10.0
TREND_S = 120.0
#: A forecast is dropped when its recent mean error is more than this share.
WORST_ERROR = 0.3
#: So many forecasts have to have been compared with what came before one is believed.
PROOFS = 3
#: A rate that leaves the level by more than this share of it is a step. A step is no trend, and must not become one.
STEP = 0.5
_ERROR_WEIGHT = 0.2
#: Forecasts under way at a time.
_PENDING = 8


def smoothed(previous: float | None, value: float, elapsed_s: float, constant_s: float) -> float:
    """Exponentially weighted mean of irregular samples; the new one has the weight `elapsed / (constant + elapsed)`."""
    if previous is None:
        return value
    weight = elapsed_s / (constant_s + elapsed_s)
    return previous + weight * (value - previous)


def observed(state: Forecast, at: float, elapsed_s: float, rate: float, horizon_s: float) -> Forecast:
    """The state after one more sample.

    Holt (1957): the level follows the rate and the trend follows the level; both smoothed for irregular samples.

    Args:
        state: that after the last sample.
        at: Unix seconds of this sample.
        elapsed_s: seconds since the last.
        rate: records per second that came in.
        horizon_s: how far ahead forecasts look.
    """
    if state.level is None or elapsed_s <= 0:
        return Forecast(level=rate)
    if abs(rate - state.level) > STEP * state.level:
        return Forecast(level=rate, error=state.error, compared=state.compared)
    expected = state.level + state.trend * elapsed_s
    level = smoothed(expected, rate, elapsed_s, LEVEL_S)
    trend = smoothed(state.trend, (level - state.level) / elapsed_s, elapsed_s, TREND_S)
    error, compared, due = state.error, state.compared, state.due
    while due and due[0][0] <= at:
        missed = min(1.0, abs(due[0][1] - level) / level) if level > 0 else 1.0
        error = missed if compared == 0 else error + _ERROR_WEIGHT * (missed - error)
        compared, due = compared + 1, due[1:]
    if not due or at + horizon_s - due[-1][0] >= horizon_s / _PENDING:
        due = (*due[-_PENDING:], (at + horizon_s, max(0.0, level + trend * horizon_s)))
    return Forecast(level=level, trend=trend, error=error, compared=min(compared, 1_000_000), due=due)


def ahead(state: Forecast, horizon_s: float) -> float | None:
    """Records per second to expect after `horizon_s`, less the usual error; None if forecasts cannot be believed."""
    if state.level is None or state.compared < PROOFS or state.error > WORST_ERROR:
        return None
    return max(0.0, state.level + state.trend * horizon_s) * (1.0 - state.error)
