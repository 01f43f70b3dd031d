// Operators that a program may have: what an engine computes from numbers alone. Left out: control flow (a program always
// ends), random numbers, texts, tables and variables that outlive a request, other makers' operators. Each list is sorted.
#include "formats.h"

namespace paraedge {
namespace {

// clang-format off
// Those that are linked into ExecuTorch's libexecutorch_kernels_optimized, with what torch's schema says of their arguments.
constexpr ExecuTorchOperator kForExecuTorch[] = {
    {"aten::_adaptive_avg_pool2d.out", "tlt"}, {"aten::_cdist_forward.out", "ttfIt"},
    {"aten::_conj_physical.out", "tt"}, {"aten::_fft_c2r.out", "tliit"}, {"aten::_fft_r2c.out", "tlibt"},
    {"aten::_local_scalar_dense", "t"}, {"aten::_log_softmax.out", "tibt"},
    {"aten::_native_batch_norm_legit.no_stats_out", "tTTbffttt"},
    {"aten::_native_batch_norm_legit.out", "tTTttbffttt"},
    {"aten::_native_batch_norm_legit_no_training.out", "tTTttffttt"}, {"aten::_pdist_forward.out", "tft"},
    {"aten::_softmax.out", "tibt"}, {"aten::_to_copy.out", "tbIt"}, {"aten::_upsample_bilinear2d_aa.out", "tlbFFt"},
    {"aten::abs.out", "tt"}, {"aten::acos.out", "tt"}, {"aten::acosh.out", "tt"}, {"aten::add.Scalar_out", "tsst"},
    {"aten::add.out", "ttst"}, {"aten::addmm.out", "tttsst"}, {"aten::alias_copy.out", "tt"},
    {"aten::amax.out", "tlbt"}, {"aten::amin.out", "tlbt"}, {"aten::any.all_out", "tt"},
    {"aten::any.dims_out", "tLbt"}, {"aten::any.out", "tibt"}, {"aten::arange.out", "st"},
    {"aten::arange.start_out", "ssst"}, {"aten::argmax.out", "tIbt"}, {"aten::argmin.out", "tIbt"},
    {"aten::as_strided_copy.out", "tllIt"}, {"aten::asin.out", "tt"}, {"aten::asinh.out", "tt"},
    {"aten::atan.out", "tt"}, {"aten::atan2.out", "ttt"}, {"aten::atanh.out", "tt"},
    {"aten::avg_pool2d.out", "tlllbbIt"}, {"aten::bitwise_and.Scalar_out", "tst"},
    {"aten::bitwise_and.Tensor_out", "ttt"}, {"aten::bitwise_left_shift.Tensor_Scalar_out", "tst"},
    {"aten::bitwise_left_shift.Tensor_out", "ttt"}, {"aten::bitwise_not.out", "tt"},
    {"aten::bitwise_or.Scalar_out", "tst"}, {"aten::bitwise_or.Tensor_out", "ttt"},
    {"aten::bitwise_right_shift.Tensor_Scalar_out", "tst"}, {"aten::bitwise_right_shift.Tensor_out", "ttt"},
    {"aten::bitwise_xor.Scalar_out", "tst"}, {"aten::bitwise_xor.Tensor_out", "ttt"}, {"aten::bmm.out", "ttt"},
    {"aten::cat.out", "vit"}, {"aten::ceil.out", "tt"}, {"aten::clamp.Tensor_out", "tTTt"},
    {"aten::clamp.out", "tSSt"}, {"aten::clone.out", "tIt"}, {"aten::constant_pad_nd.out", "tlst"},
    {"aten::convolution.out", "ttTlllblit"}, {"aten::copy.out", "ttbt"}, {"aten::copy_", "ttb"},
    {"aten::cos.out", "tt"}, {"aten::cosh.out", "tt"}, {"aten::cumsum.out", "tiIt"}, {"aten::detach_copy.out", "tt"},
    {"aten::diagonal_copy.out", "tiiit"}, {"aten::div.Scalar_mode_out", "tsXt"}, {"aten::div.Scalar_out", "tst"},
    {"aten::div.out", "ttt"}, {"aten::div.out_mode", "ttXt"}, {"aten::elu.out", "tssst"},
    {"aten::embedding.out", "ttibbt"}, {"aten::empty.out", "lIt"}, {"aten::eq.Scalar_out", "tst"},
    {"aten::eq.Tensor_out", "ttt"}, {"aten::erf.out", "tt"}, {"aten::exp.out", "tt"},
    {"aten::expand_copy.out", "tlbt"}, {"aten::expm1.out", "tt"}, {"aten::fill.Scalar_out", "tst"},
    {"aten::fill.Tensor_out", "ttt"}, {"aten::flip.out", "tlt"}, {"aten::floor.out", "tt"},
    {"aten::floor_divide.out", "ttt"}, {"aten::fmod.Scalar_out", "tst"}, {"aten::fmod.Tensor_out", "ttt"},
    {"aten::full.out", "lst"}, {"aten::full_like.out", "tsIt"}, {"aten::gather.out", "titbt"},
    {"aten::ge.Scalar_out", "tst"}, {"aten::ge.Tensor_out", "ttt"}, {"aten::gelu.out", "txt"},
    {"aten::glu.out", "tit"}, {"aten::grid_sampler_2d.out", "ttiibt"}, {"aten::gt.Scalar_out", "tst"},
    {"aten::gt.Tensor_out", "ttt"}, {"aten::hardtanh.out", "tsst"}, {"aten::index.Tensor_out", "twt"},
    {"aten::index_put.out", "twtbt"}, {"aten::index_put_", "twtb"}, {"aten::index_select.out", "titt"},
    {"aten::isinf.out", "tt"}, {"aten::isnan.out", "tt"}, {"aten::le.Scalar_out", "tst"},
    {"aten::le.Tensor_out", "ttt"}, {"aten::leaky_relu.out", "tst"}, {"aten::lift_fresh_copy.out", "tt"},
    {"aten::linear.out", "ttTt"}, {"aten::log.out", "tt"}, {"aten::log10.out", "tt"}, {"aten::log1p.out", "tt"},
    {"aten::log2.out", "tt"}, {"aten::logical_and.out", "ttt"}, {"aten::logical_not.out", "tt"},
    {"aten::logical_or.out", "ttt"}, {"aten::logical_xor.out", "ttt"}, {"aten::logit.out", "tFt"},
    {"aten::lt.Scalar_out", "tst"}, {"aten::lt.Tensor_out", "ttt"}, {"aten::masked_fill.Scalar_out", "ttst"},
    {"aten::masked_scatter.out", "tttt"}, {"aten::masked_select.out", "ttt"}, {"aten::max.dim_max", "tibtt"},
    {"aten::max.unary_out", "tt"}, {"aten::max_pool2d_with_indices.out", "tllllbtt"}, {"aten::maximum.out", "ttt"},
    {"aten::mean.dtype_out", "tIt"}, {"aten::mean.out", "tLbIt"}, {"aten::min.dim_min", "tibtt"},
    {"aten::min.unary_out", "tt"}, {"aten::minimum.out", "ttt"}, {"aten::mm.out", "ttt"},
    {"aten::mul.Scalar_out", "tst"}, {"aten::mul.out", "ttt"}, {"aten::narrow_copy.out", "tiiit"},
    {"aten::native_dropout.out", "tfBtt"}, {"aten::native_group_norm.out", "tTTiiiifttt"},
    {"aten::native_layer_norm.out", "tlTTfttt"}, {"aten::ne.Scalar_out", "tst"}, {"aten::ne.Tensor_out", "ttt"},
    {"aten::neg.out", "tt"}, {"aten::nonzero.out", "tt"}, {"aten::ones.out", "lt"}, {"aten::permute_copy.out", "tlt"},
    {"aten::pixel_shuffle.out", "tit"}, {"aten::pixel_unshuffle.out", "tit"}, {"aten::pow.Scalar_out", "stt"},
    {"aten::pow.Tensor_Scalar_out", "tst"}, {"aten::pow.Tensor_Tensor_out", "ttt"}, {"aten::prod.int_out", "tibIt"},
    {"aten::prod.out", "tIt"}, {"aten::reciprocal.out", "tt"}, {"aten::reflection_pad1d.out", "tlt"},
    {"aten::reflection_pad2d.out", "tlt"}, {"aten::reflection_pad3d.out", "tlt"}, {"aten::relu.out", "tt"},
    {"aten::remainder.Scalar_out", "tst"}, {"aten::remainder.Tensor_out", "ttt"}, {"aten::repeat.out", "tlt"},
    {"aten::repeat_interleave.Tensor_out", "tIt"}, {"aten::replication_pad1d.out", "tlt"},
    {"aten::replication_pad2d.out", "tlt"}, {"aten::replication_pad3d.out", "tlt"}, {"aten::roll.out", "tllt"},
    {"aten::round.out", "tt"}, {"aten::rsqrt.out", "tt"}, {"aten::rsub.Scalar_out", "tsst"},
    {"aten::scalar_tensor.out", "st"}, {"aten::scatter.src_out", "tittt"}, {"aten::scatter.value_out", "titst"},
    {"aten::scatter_add.out", "tittt"}, {"aten::select_copy.int_out", "tiit"}, {"aten::select_scatter.out", "ttiit"},
    {"aten::sigmoid.out", "tt"}, {"aten::sign.out", "tt"}, {"aten::sin.out", "tt"}, {"aten::sinh.out", "tt"},
    {"aten::slice_copy.Tensor_out", "tiIIit"}, {"aten::slice_scatter.out", "ttiIIit"},
    {"aten::split_copy.Tensor_out", "tiiv"}, {"aten::split_with_sizes_copy.out", "tliv"}, {"aten::sqrt.out", "tt"},
    {"aten::squeeze_copy.dim_out", "tit"}, {"aten::squeeze_copy.dims_out", "tlt"}, {"aten::stack.out", "vit"},
    {"aten::sub.Scalar_out", "tsst"}, {"aten::sub.out", "ttst"}, {"aten::sum.IntList_out", "tLbIt"},
    {"aten::sym_numel", "t"}, {"aten::sym_size.int", "ti"}, {"aten::t_copy.out", "tt"}, {"aten::tan.out", "tt"},
    {"aten::tanh.out", "tt"}, {"aten::topk.values", "tiibbtt"}, {"aten::transpose_copy.int_out", "tiit"},
    {"aten::tril.out", "tit"}, {"aten::trunc.out", "tt"}, {"aten::unbind_copy.int_out", "tiv"},
    {"aten::unfold_copy.out", "tiiit"}, {"aten::unsqueeze_copy.out", "tit"},
    {"aten::upsample_bilinear2d.vec_out", "tLbDt"}, {"aten::upsample_nearest2d.vec_out", "tLDt"},
    {"aten::var.correction_out", "tLSbt"}, {"aten::var.out", "tLbbt"}, {"aten::var_mean.correction_out", "tLSbtt"},
    {"aten::view_as_real_copy.out", "tt"}, {"aten::view_copy.out", "tlt"}, {"aten::where.self_out", "tttt"},
    {"aten::zeros.out", "lt"}, {"dim_order_ops::_clone_dim_order.out", ""},
    {"dim_order_ops::_empty_dim_order.out", ""}, {"dim_order_ops::_to_dim_order_copy.out", ""},
    {"executorch_prim::add.Scalar", ""}, {"executorch_prim::ceil.Scalar", ""}, {"executorch_prim::eq.Scalar", ""},
    {"executorch_prim::et_view.default", ""}, {"executorch_prim::floordiv.Scalar", ""},
    {"executorch_prim::floordiv.int", ""}, {"executorch_prim::ge.Scalar", ""}, {"executorch_prim::gt.Scalar", ""},
    {"executorch_prim::le.Scalar", ""}, {"executorch_prim::lt.Scalar", ""}, {"executorch_prim::mod.Scalar", ""},
    {"executorch_prim::mod.int", ""}, {"executorch_prim::mul.Scalar", ""}, {"executorch_prim::neg.Scalar", ""},
    {"executorch_prim::round.Scalar", ""}, {"executorch_prim::sub.Scalar", ""},
    {"executorch_prim::sym_float.Scalar", ""}, {"executorch_prim::sym_int.Scalar", ""},
    {"executorch_prim::sym_ite.Scalar", ""}, {"executorch_prim::sym_max.Scalar", ""},
    {"executorch_prim::sym_min.Scalar", ""}, {"executorch_prim::sym_not.Scalar", ""},
    {"executorch_prim::truediv.Scalar", ""}, {"executorch_prim::trunc.Scalar", ""},
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

const std::string_view* find_onnx_operator(std::string_view name) {
  const auto found = std::ranges::lower_bound(kForOnnx, name);
  return found != std::end(kForOnnx) && *found == name ? found : nullptr;
}

const ExecuTorchOperator* find_executorch_operator(std::string_view name) {
  const auto found = std::ranges::lower_bound(kForExecuTorch, name, {}, &ExecuTorchOperator::name);
  return found != std::end(kForExecuTorch) && found->name == name ? found : nullptr;
}

const LiteRTOperator* find_litert_operator(std::string_view name) {
  const auto found = std::ranges::lower_bound(kForLiteRT, name, {}, &LiteRTOperator::name);
  return found != std::end(kForLiteRT) && found->name == name ? found : nullptr;
}

}  // namespace paraedge
