// Operators that a program may have: what an engine computes from numbers alone. Left out: control flow (a program always
// ends), random numbers, texts, tables and variables that outlive a request, other makers' operators. Each list is sorted.
#include "formats.h"

namespace paraedge {
namespace {

// clang-format off
// Those that are linked into ExecuTorch's libexecutorch_kernels_optimized.
constexpr std::string_view kForExecuTorch[] = {
    "aten::_adaptive_avg_pool2d.out", "aten::_cdist_forward.out", "aten::_conj_physical.out", "aten::_fft_c2r.out",
    "aten::_fft_r2c.out", "aten::_local_scalar_dense", "aten::_log_softmax.out",
    "aten::_native_batch_norm_legit.no_stats_out", "aten::_native_batch_norm_legit.out",
    "aten::_native_batch_norm_legit_no_training.out", "aten::_pdist_forward.out", "aten::_softmax.out",
    "aten::_to_copy.out", "aten::_upsample_bilinear2d_aa.out", "aten::abs.out", "aten::acos.out", "aten::acosh.out",
    "aten::add.Scalar_out", "aten::add.out", "aten::addmm.out", "aten::alias_copy.out", "aten::amax.out",
    "aten::amin.out", "aten::any.all_out", "aten::any.dims_out", "aten::any.out", "aten::arange.out",
    "aten::arange.start_out", "aten::argmax.out", "aten::argmin.out", "aten::as_strided_copy.out", "aten::asin.out",
    "aten::asinh.out", "aten::atan.out", "aten::atan2.out", "aten::atanh.out", "aten::avg_pool2d.out",
    "aten::bitwise_and.Scalar_out", "aten::bitwise_and.Tensor_out", "aten::bitwise_left_shift.Tensor_Scalar_out",
    "aten::bitwise_left_shift.Tensor_out", "aten::bitwise_not.out", "aten::bitwise_or.Scalar_out",
    "aten::bitwise_or.Tensor_out", "aten::bitwise_right_shift.Tensor_Scalar_out",
    "aten::bitwise_right_shift.Tensor_out", "aten::bitwise_xor.Scalar_out", "aten::bitwise_xor.Tensor_out",
    "aten::bmm.out", "aten::cat.out", "aten::ceil.out", "aten::clamp.Tensor_out", "aten::clamp.out",
    "aten::clone.out", "aten::constant_pad_nd.out", "aten::convolution.out", "aten::copy.out", "aten::copy_",
    "aten::cos.out", "aten::cosh.out", "aten::cumsum.out", "aten::detach_copy.out", "aten::diagonal_copy.out",
    "aten::div.Scalar_mode_out", "aten::div.Scalar_out", "aten::div.out", "aten::div.out_mode", "aten::elu.out",
    "aten::embedding.out", "aten::empty.out", "aten::eq.Scalar_out", "aten::eq.Tensor_out", "aten::erf.out",
    "aten::exp.out", "aten::expand_copy.out", "aten::expm1.out", "aten::fill.Scalar_out", "aten::fill.Tensor_out",
    "aten::flip.out", "aten::floor.out", "aten::floor_divide.out", "aten::fmod.Scalar_out", "aten::fmod.Tensor_out",
    "aten::full.out", "aten::full_like.out", "aten::gather.out", "aten::ge.Scalar_out", "aten::ge.Tensor_out",
    "aten::gelu.out", "aten::glu.out", "aten::grid_sampler_2d.out", "aten::gt.Scalar_out", "aten::gt.Tensor_out",
    "aten::hardtanh.out", "aten::index.Tensor_out", "aten::index_put.out", "aten::index_put_",
    "aten::index_select.out", "aten::isinf.out", "aten::isnan.out", "aten::le.Scalar_out", "aten::le.Tensor_out",
    "aten::leaky_relu.out", "aten::lift_fresh_copy.out", "aten::linear.out", "aten::log.out", "aten::log10.out",
    "aten::log1p.out", "aten::log2.out", "aten::logical_and.out", "aten::logical_not.out", "aten::logical_or.out",
    "aten::logical_xor.out", "aten::logit.out", "aten::lt.Scalar_out", "aten::lt.Tensor_out",
    "aten::masked_fill.Scalar_out", "aten::masked_scatter.out", "aten::masked_select.out", "aten::max.dim_max",
    "aten::max.unary_out", "aten::max_pool2d_with_indices.out", "aten::maximum.out", "aten::mean.dtype_out",
    "aten::mean.out", "aten::min.dim_min", "aten::min.unary_out", "aten::minimum.out", "aten::mm.out",
    "aten::mul.Scalar_out", "aten::mul.out", "aten::narrow_copy.out", "aten::native_dropout.out",
    "aten::native_group_norm.out", "aten::native_layer_norm.out", "aten::ne.Scalar_out", "aten::ne.Tensor_out",
    "aten::neg.out", "aten::nonzero.out", "aten::ones.out", "aten::permute_copy.out", "aten::pixel_shuffle.out",
    "aten::pixel_unshuffle.out", "aten::pow.Scalar_out", "aten::pow.Tensor_Scalar_out", "aten::pow.Tensor_Tensor_out",
    "aten::prod.int_out", "aten::prod.out", "aten::reciprocal.out", "aten::reflection_pad1d.out",
    "aten::reflection_pad2d.out", "aten::reflection_pad3d.out", "aten::relu.out", "aten::remainder.Scalar_out",
    "aten::remainder.Tensor_out", "aten::repeat.out", "aten::repeat_interleave.Tensor_out",
    "aten::replication_pad1d.out", "aten::replication_pad2d.out", "aten::replication_pad3d.out", "aten::roll.out",
    "aten::round.out", "aten::rsqrt.out", "aten::rsub.Scalar_out", "aten::scalar_tensor.out", "aten::scatter.src_out",
    "aten::scatter.value_out", "aten::scatter_add.out", "aten::select_copy.int_out", "aten::select_scatter.out",
    "aten::sigmoid.out", "aten::sign.out", "aten::sin.out", "aten::sinh.out", "aten::slice_copy.Tensor_out",
    "aten::slice_scatter.out", "aten::split_copy.Tensor_out", "aten::split_with_sizes_copy.out", "aten::sqrt.out",
    "aten::squeeze_copy.dim_out", "aten::squeeze_copy.dims_out", "aten::stack.out", "aten::sub.Scalar_out",
    "aten::sub.out", "aten::sum.IntList_out", "aten::sym_numel", "aten::sym_size.int", "aten::t_copy.out",
    "aten::tan.out", "aten::tanh.out", "aten::topk.values", "aten::transpose_copy.int_out", "aten::tril.out",
    "aten::trunc.out", "aten::unbind_copy.int_out", "aten::unfold_copy.out", "aten::unsqueeze_copy.out",
    "aten::upsample_bilinear2d.vec_out", "aten::upsample_nearest2d.vec_out", "aten::var.correction_out",
    "aten::var.out", "aten::var_mean.correction_out", "aten::view_as_real_copy.out", "aten::view_copy.out",
    "aten::where.self_out", "aten::zeros.out", "dim_order_ops::_clone_dim_order.out",
    "dim_order_ops::_empty_dim_order.out", "dim_order_ops::_to_dim_order_copy.out", "executorch_prim::add.Scalar",
    "executorch_prim::ceil.Scalar", "executorch_prim::eq.Scalar", "executorch_prim::et_view.default",
    "executorch_prim::floordiv.Scalar", "executorch_prim::floordiv.int", "executorch_prim::ge.Scalar",
    "executorch_prim::gt.Scalar", "executorch_prim::le.Scalar", "executorch_prim::lt.Scalar",
    "executorch_prim::mod.Scalar", "executorch_prim::mod.int", "executorch_prim::mul.Scalar",
    "executorch_prim::neg.Scalar", "executorch_prim::round.Scalar", "executorch_prim::sub.Scalar",
    "executorch_prim::sym_float.Scalar", "executorch_prim::sym_int.Scalar", "executorch_prim::sym_ite.Scalar",
    "executorch_prim::sym_max.Scalar", "executorch_prim::sym_min.Scalar", "executorch_prim::sym_not.Scalar",
    "executorch_prim::truediv.Scalar", "executorch_prim::trunc.Scalar",
};

// BuiltinOperator of TensorFlow's schema; a kernel or XNNPACK reads so many inputs whether they are there or not.
constexpr LiteRTOperator kForLiteRT[] = {
    {"ABS", 1, 1, 1}, {"ADD", 2, 2, 1}, {"ADD_N", 1, 9999, 1}, {"ARG_MAX", 2, 2, 1}, {"ARG_MIN", 2, 2, 1},
    {"ATAN2", 2, 2, 1}, {"AVERAGE_POOL_2D", 1, 1, 1}, {"BATCH_MATMUL", 2, 2, 1}, {"BATCH_TO_SPACE_ND", 3, 3, 1},
    {"BITCAST", 1, 1, 1}, {"BITWISE_XOR", 2, 2, 1}, {"BROADCAST_ARGS", 2, 2, 1}, {"BROADCAST_TO", 2, 2, 1},
    {"BUCKETIZE", 1, 1, 1}, {"CAST", 1, 1, 1}, {"CEIL", 1, 1, 1}, {"COMPLEX_ABS", 1, 1, 1},
    {"CONCATENATION", 1, 9999, 1}, {"CONV_2D", 2, 3, 1}, {"CONV_3D", 2, 3, 1}, {"CONV_3D_TRANSPOSE", 3, 4, 1},
    {"COS", 1, 1, 1}, {"CUMSUM", 2, 2, 1}, {"DEPTHWISE_CONV_2D", 2, 3, 1}, {"DEPTH_TO_SPACE", 1, 1, 1},
    {"DEQUANTIZE", 1, 1, 1}, {"DILATE", 3, 3, 1}, {"DIV", 2, 2, 1}, {"DYNAMIC_UPDATE_SLICE", 3, 3, 1},
    {"ELU", 1, 1, 1}, {"EMBEDDING_LOOKUP", 2, 2, 1}, {"EQUAL", 2, 2, 1}, {"EXP", 1, 1, 1}, {"EXPAND_DIMS", 2, 2, 1},
    {"FAKE_QUANT", 1, 1, 1}, {"FILL", 2, 2, 1}, {"FLOOR", 1, 1, 1}, {"FLOOR_DIV", 2, 2, 1}, {"FLOOR_MOD", 2, 2, 1},
    {"FULLY_CONNECTED", 2, 3, 1}, {"GATHER", 2, 2, 1}, {"GATHER_ND", 2, 2, 1}, {"GELU", 1, 1, 1},
    {"GREATER", 2, 2, 1}, {"GREATER_EQUAL", 2, 2, 1}, {"HARD_SWISH", 1, 1, 1}, {"IMAG", 1, 1, 1},
    {"L2_NORMALIZATION", 1, 1, 1}, {"L2_POOL_2D", 1, 1, 1}, {"LEAKY_RELU", 1, 1, 1}, {"LESS", 2, 2, 1},
    {"LESS_EQUAL", 2, 2, 1}, {"LOCAL_RESPONSE_NORMALIZATION", 1, 1, 1}, {"LOG", 1, 1, 1}, {"LOGICAL_AND", 2, 2, 1},
    {"LOGICAL_NOT", 1, 1, 1}, {"LOGICAL_OR", 2, 2, 1}, {"LOGISTIC", 1, 1, 1}, {"LOG_SOFTMAX", 1, 1, 1},
    {"MATRIX_DIAG", 1, 1, 1}, {"MATRIX_SET_DIAG", 2, 2, 1}, {"MAXIMUM", 2, 2, 1}, {"MAX_POOL_2D", 1, 1, 1},
    {"MEAN", 2, 2, 1}, {"MINIMUM", 2, 2, 1}, {"MIRROR_PAD", 2, 2, 1}, {"MUL", 2, 2, 1}, {"NEG", 1, 1, 1},
    {"NON_MAX_SUPPRESSION_V4", 5, 5, 2}, {"NON_MAX_SUPPRESSION_V5", 6, 6, 3}, {"NOT_EQUAL", 2, 2, 1},
    {"ONE_HOT", 4, 4, 1}, {"PACK", 1, 9999, 1}, {"PAD", 2, 2, 1}, {"PADV2", 3, 3, 1}, {"POW", 2, 2, 1},
    {"PRELU", 2, 2, 1}, {"QUANTIZE", 1, 1, 1}, {"RANGE", 3, 3, 1}, {"RANK", 1, 1, 1}, {"REAL", 1, 1, 1},
    {"REDUCE_ALL", 2, 2, 1}, {"REDUCE_ANY", 2, 2, 1}, {"REDUCE_MAX", 2, 2, 1}, {"REDUCE_MIN", 2, 2, 1},
    {"REDUCE_PROD", 2, 2, 1}, {"RELU", 1, 1, 1}, {"RELU6", 1, 1, 1}, {"RELU_0_TO_1", 1, 1, 1},
    {"RELU_N1_TO_1", 1, 1, 1}, {"RESHAPE", 1, 2, 1}, {"RESIZE_BILINEAR", 2, 2, 1},
    {"RESIZE_NEAREST_NEIGHBOR", 2, 2, 1}, {"REVERSE_SEQUENCE", 2, 2, 1}, {"REVERSE_V2", 2, 2, 1}, {"RFFT2D", 2, 2, 1},
    {"RIGHT_SHIFT", 2, 2, 1}, {"RNN", 5, 5, 1}, {"ROUND", 1, 1, 1}, {"RSQRT", 1, 1, 1}, {"SCATTER_ND", 3, 3, 1},
    {"SEGMENT_SUM", 2, 2, 1}, {"SELECT", 3, 3, 1}, {"SELECT_V2", 3, 3, 1}, {"SHAPE", 1, 1, 1}, {"SIGN", 1, 1, 1},
    {"SIN", 1, 1, 1}, {"SLICE", 3, 3, 1}, {"SOFTMAX", 1, 1, 1}, {"SPACE_TO_BATCH_ND", 3, 3, 1},
    {"SPACE_TO_DEPTH", 1, 1, 1}, {"SPARSE_TO_DENSE", 4, 4, 1}, {"SPLIT", 2, 2, 0}, {"SPLIT_V", 3, 3, 0},
    {"SQRT", 1, 1, 1}, {"SQUARE", 1, 1, 1}, {"SQUARED_DIFFERENCE", 2, 2, 1}, {"SQUEEZE", 1, 1, 1},
    {"STRIDED_SLICE", 4, 4, 1}, {"SUB", 2, 2, 1}, {"SUM", 2, 2, 1}, {"SVDF", 5, 5, 1}, {"TANH", 1, 1, 1},
    {"TILE", 2, 2, 1}, {"TOPK_V2", 2, 2, 2}, {"TRANSPOSE", 2, 2, 1}, {"TRANSPOSE_CONV", 3, 4, 1},
    {"UNIDIRECTIONAL_SEQUENCE_LSTM", 20, 24, 1}, {"UNIDIRECTIONAL_SEQUENCE_RNN", 5, 5, 1}, {"UNIQUE", 1, 1, 2},
    {"UNPACK", 1, 1, 0}, {"UNSORTED_SEGMENT_MAX", 3, 3, 1}, {"UNSORTED_SEGMENT_MIN", 3, 3, 1},
    {"UNSORTED_SEGMENT_PROD", 3, 3, 1}, {"UNSORTED_SEGMENT_SUM", 3, 3, 1}, {"WHERE", 1, 1, 1},
    {"ZEROS_LIKE", 1, 1, 1},
};

// Of the domain ai.onnx, and what paraedge's own converter makes of another.
constexpr std::string_view kForOnnx[] = {
    "Abs", "Acos", "Acosh", "Add", "AffineGrid", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh",
    "Attention", "AveragePool", "BatchNormalization", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
    "BitwiseXor", "BlackmanWindow", "Cast", "CastLike", "CausalConvWithState", "Ceil", "Celu", "CenterCropPad",
    "Clip", "Col2Im", "Compress", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvInteger", "ConvTranspose",
    "Cos", "Cosh", "CumProd", "CumSum", "DFT", "DeformConv", "DepthToSpace", "DequantizeLinear", "Det", "Div",
    "Dropout", "DynamicQuantizeLinear", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten",
    "Floor", "GRU", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalLpPool",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization", "HammingWindow", "HannWindow",
    "HardSigmoid", "HardSwish", "Hardmax", "Identity", "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LSTM",
    "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "LinearAttention", "Log", "LogSoftmax",
    "LpNormalization", "LpPool", "MatMul", "MatMulInteger", "Max", "MaxPool", "MaxRoiPool", "MaxUnpool", "Mean",
    "MeanVarianceNormalization", "MelWeightMatrix", "Min", "Mish", "Mod", "Mul", "Neg", "NonMaxSuppression",
    "NonZero", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow", "QLinearConv", "QLinearMatMul", "QuantizeLinear",
    "RMSNormalization", "RNN", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize",
    "ReverseSequence", "RoiAlign", "RotaryEmbedding", "Round", "STFT", "Scatter", "ScatterElements", "ScatterND",
    "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax", "Softplus", "Softsign",
    "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "SwiGLU", "Swish", "Tan", "Tanh", "TensorScatter",
    "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu", "Unique", "Unsqueeze", "Upsample", "Where", "Xor",
    "com.microsoft.MatMulNBits",
};
// clang-format on

}  // namespace

const std::span<const std::string_view> kExecuTorchOperators = kForExecuTorch, kOnnxOperators = kForOnnx;

const LiteRTOperator* find_litert_operator(std::string_view name) {
  const auto found = std::ranges::lower_bound(kForLiteRT, name, {}, &LiteRTOperator::name);
  return found != std::end(kForLiteRT) && found->name == name ? found : nullptr;
}

}  // namespace paraedge
