"""All patterns, in the order in which their alarms are told."""

from pipeline.measure.kernels.facts import Cpu, Facts
from pipeline.measure.kernels.patterns import conversions, gemms, layouts, products
from pipeline.measure.kernels.patterns.alarm import Alarm, Pattern

PATTERNS: tuple[Pattern, ...] = (
    layouts.wrong_axis,
    products.signed_activations,
    products.unfused_activation,
    products.wide_activations,
    products.open_end,
    gemms.without_zero_point,
    gemms.with_bias,
    products.cut_pair,
    products.one_of_two,
    products.weights_at_run_time,
    products.recurrent,
    conversions.dynamic_convolution,
    conversions.slow_integers,
    conversions.few_bits,
    conversions.groups,
    conversions.for_nothing,
    conversions.half_precision,
    conversions.tiny_products,
    layouts.unfolded_norm,
    layouts.to_and_fro,
    layouts.odd_widths,
    layouts.filled_blocks,
)


def alarms(facts: Facts, cpu: Cpu) -> list[Alarm]:
    """What is known to be bad of a file."""
    return [alarm for pattern in PATTERNS for alarm in pattern(facts, cpu)]
