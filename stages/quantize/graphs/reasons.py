"""Why a node stays in fp32, or is quantized otherwise than asked, and how the log says it."""

MASK, WEIGHT, RANGE, EXACT, DEEP, WHOLE = "mask", "weight", "range", "exact", "axes", "whole"
NEAREST, BIAS, SHAPE, LARGE = "nearest", "bias", "shape", "large"
SMOOTHED, EQUALIZED, HALF = "smoothed", "equalized", "fp16"
NOTES = (WHOLE, NEAREST, BIAS, SMOOTHED, EQUALIZED, HALF)
"""Reasons that do not leave a node in fp32."""
REASONS = {
    MASK: "in fp32 for a mask among their values",
    WEIGHT: "in fp32 for a constant that 8 bits would lose beside its largest values",
    RANGE: "in fp32 for values that 8 bits would lose beside the largest ones of the calibration data",
    EXACT: "in fp32 for what is compared, rounded or an angle",
    DEEP: "in fp32 for a weight of more than two axes",
    WHOLE: "with one scale for a weight of more than two axes, or one that other nodes read along another axis",
    NEAREST: "rounded to the nearest, as a lookup, a recurrent layer, a weight of more axes or with other readers is",
    LARGE: "in fp32 for a mask, or a constant that is too large for fp16",
    SHAPE: "in fp32 for a weight of other axes than two, rows that fill no bytes, or a Gemm that is no plain product",
    SMOOTHED: "with outliers of their inputs moved into their weights",
    EQUALIZED: "with channels equalized to those of the layer before",
    HALF: "not quantized, with weights in fp16",
    BIAS: "without a bias that a mean shift could be taken off",
}
