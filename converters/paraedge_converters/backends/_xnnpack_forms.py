"""Operators that XNNPACK does not take, written in those that it takes: the same numbers, up to rounding.

Each form is a function with the operator's own signature, for static shapes. One that returns ``NotImplemented`` leaves
the operator as it is: what is left is named by ``_undelegated.py``, and the parity gate proves the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FORMS", "in_xnnpack_forms"]

aten = torch.ops.aten


def in_xnnpack_forms(module: nn.Module, example: Tensor) -> torch.fx.GraphModule:
    """The module's graph in operators that XNNPACK takes; what does not depend on the input is computed here.

    The nodes keep the path of their module and their line in its source.
    """
    # With gradients: without them nn.MultiheadAttention and nn.TransformerEncoderLayer take a path of one operator.
    with torch.enable_grad():
        exported = torch.export.export(module, (example,))
    with torch.no_grad():
        graph_module = exported.run_decompositions(FORMS).module()
        assert isinstance(graph_module, torch.fx.GraphModule)
        _make_scalars_float(graph_module)
        _fold_constants(graph_module)
    for part in graph_module.modules():
        part._non_persistent_buffers_set.clear()  # ExecuTorch looks for every buffer in the state dict
    return graph_module


def _fold_constants(graph_module: torch.fx.GraphModule) -> None:
    """A class token's expand, a position bias from its table, the cosines of rotary positions become buffers."""
    graph, values = graph_module.graph, dict[torch.fx.Node, Any]()
    for node in list(graph.nodes):
        if node.op == "get_attr":
            values[node] = _attribute(graph_module, str(node.target))
            if isinstance(values[node], Tensor) and not values[node].is_contiguous():
                _keep(graph_module, f"_contiguous_{len(values)}", node, values)
        elif _is_deterministic(node) and all(known in values for known in node.all_input_nodes):
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
    for number, node in enumerate([node for node in values if _is_last_known(node, values)]):
        _keep(graph_module, f"_computed_{number}", node, values)
    graph.eliminate_dead_code()
    graph_module.recompile()


def _keep(graph_module: torch.fx.GraphModule, name: str, node: torch.fx.Node, values: dict[torch.fx.Node, Any]) -> None:
    """The node's value as a buffer in its place, contiguous: XNNPACK reads the bytes of a permuted one as they lie."""
    graph_module.register_buffer(name, values[node].detach().clone(memory_format=torch.contiguous_format))
    with graph_module.graph.inserting_before(node):
        buffer = graph_module.graph.get_attr(name)
        buffer.meta = dict(node.meta)
        node.replace_all_uses_with(buffer)
    values[buffer] = values[node]


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module


def _is_deterministic(node: torch.fx.Node) -> bool:
    return node.op == "call_function" and torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ())


def _is_last_known(node: torch.fx.Node, values: dict[torch.fx.Node, Any]) -> bool:
    is_tensor = node.op == "call_function" and isinstance(values[node], Tensor)
    return is_tensor and any(user not in values for user in node.users)


def _make_scalars_float(graph_module: torch.fx.GraphModule) -> None:
    """``x / 3`` casts a 3 on the device, outside the delegate; ``x / 3.0`` does not."""
    for node in graph_module.graph.nodes:
        value = node.meta.get("val")
        if node.target in _WITH_SCALARS and isinstance(value, Tensor) and value.is_floating_point():
            node.args = tuple([float(arg) if type(arg) is int else arg for arg in node.args])


def _expand(x: Tensor, size: Sequence[int], *, implicit: bool = False) -> Tensor:
    y = x.reshape([1] * (len(size) - x.dim()) + list(x.shape))
    copies = [1 if wanted in (-1, now) else wanted for wanted, now in zip(size, y.shape, strict=True)]
    return y if set(copies) == {1} else y * torch.ones(copies, dtype=x.dtype)


def _expand_as(x: Tensor, other: Tensor) -> Tensor:
    return _expand(x, list(other.shape))


def _repeat(x: Tensor, repeats: Sequence[int]) -> Tensor:
    y = x.reshape([1] * (len(repeats) - x.dim()) + list(x.shape))
    for dim, times in enumerate(repeats):
        if times != 1:
            shape = list(y.shape)
            shape[dim] *= times
            copied = _expand(y.unsqueeze(dim), [times if place == dim else -1 for place in range(y.dim() + 1)])
            y = copied.reshape(shape)
    return y


def _repeat_interleave(x: Tensor, repeats: int, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    if dim is None:
        x, dim = x.reshape(-1), 0
    dim %= x.dim()
    shape = list(x.shape)
    shape[dim] *= repeats
    copied = _expand(x.unsqueeze(dim + 1), [repeats if place == dim + 1 else -1 for place in range(x.dim() + 1)])
    return copied.reshape(shape)


def _unsqueeze(x: Tensor, dim: int) -> Tensor:
    shape = list(x.shape)
    shape.insert(dim % (x.dim() + 1), 1)
    return x.reshape(shape)


def _squeeze(x: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    named = range(x.dim()) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {place % x.dim() for place in named} if x.dim() else set()
    return x.reshape([size for place, size in enumerate(x.shape) if place not in gone or size != 1])


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    if a.dim() == 1:
        return _matmul(a[None], b).squeeze(-2)
    if b.dim() == 1:
        return _matmul(a, b[:, None]).squeeze(-1)
    (rows, inner), columns = a.shape[-2:], b.shape[-1]
    if b.dim() == 2:  # one product for all of a's leading dimensions
        product = torch.bmm(a.reshape(1, -1, inner), b[None])
        return product.reshape(*a.shape[:-1], columns)
    leading = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    a = a.expand(*leading, rows, inner).reshape(-1, rows, inner)
    b = b.expand(*leading, inner, columns).reshape(-1, inner, columns)
    return torch.bmm(a, b).reshape(*leading, rows, columns)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """(…, h, T, d), (…, h, S, d), (…, h, S, e) -> (…, h, T, e)."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = torch.matmul(query * factor, key.transpose(-2, -1))
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.where(attn_mask, 0.0, _lowest(scores)).to(scores.dtype)
        scores = scores + attn_mask
    return torch.matmul(scores.softmax(-1), value)


def _lowest(x: Tensor) -> float:
    """Stands for minus infinity in sums before a softmax: nothing is left of it, and no NaN comes of it."""
    return torch.finfo(x.dtype).min / 2


def _multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_head: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    mask: Tensor | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> Any:
    """The fast path of ``nn.MultiheadAttention`` with frozen weights: (B, T, D) -> (B, T, D), and no weights."""
    if mask is not None or need_weights:
        return NotImplemented
    parts = zip((query, key, value), qkv_weight.chunk(3), qkv_bias.chunk(3), strict=True)
    q, k, v = [
        torch.nn.functional.linear(x, weight, bias).reshape(*x.shape[:2], num_head, -1).transpose(1, 2)
        for x, weight, bias in parts
    ]  # (B, h, T, d)
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return torch.nn.functional.linear(mixed, proj_weight, proj_bias), query.new_zeros(1)


def _encoder_layer(
    src: Tensor,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: Tensor,
    norm_bias_1: Tensor,
    norm_weight_2: Tensor,
    norm_bias_2: Tensor,
    ffn_weight_1: Tensor,
    ffn_bias_1: Tensor,
    ffn_weight_2: Tensor,
    ffn_bias_2: Tensor,
    mask: Tensor | None = None,
    mask_type: int | None = None,
) -> Any:
    """The fast path of ``nn.TransformerEncoderLayer`` with frozen weights: (B, T, D) -> (B, T, D)."""
    if mask is not None:
        return NotImplemented
    functional = torch.nn.functional

    def attend(x: Tensor) -> Tensor:
        mixed: Tensor = _multi_head_attention(
            x, x, x, embed_dim, num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias, need_weights=False
        )[0]
        return mixed

    def feed_forward(x: Tensor) -> Tensor:
        hidden = functional.linear(x, ffn_weight_1, ffn_bias_1)
        hidden = functional.gelu(hidden) if use_gelu else functional.relu(hidden)
        return functional.linear(hidden, ffn_weight_2, ffn_bias_2)

    def first(x: Tensor) -> Tensor:
        return functional.layer_norm(x, (embed_dim,), norm_weight_1, norm_bias_1, eps)

    def second(x: Tensor) -> Tensor:
        return functional.layer_norm(x, (embed_dim,), norm_weight_2, norm_bias_2, eps)

    if norm_first:
        src = src + attend(first(src))
        return src + feed_forward(second(src))
    src = first(src + attend(src))
    return second(src + feed_forward(src))


def _softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Any:
    if dtype not in (None, x.dtype) or x.dim() == 0:
        return NotImplemented
    if dim % x.dim() == x.dim() - 1:
        return aten._softmax.default(x, -1, False)
    return aten._softmax.default(x.transpose(dim, -1), -1, False).transpose(dim, -1)


def _reduced(x: Tensor, dims: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """The dimensions that stay, and those that go."""
    gone = sorted({dim % x.dim() for dim in dims}) if dims else list(range(x.dim()))
    return [dim for dim in range(x.dim()) if dim not in gone], gone


def _as_pixels(x: Tensor, dims: Sequence[int] | None) -> Tensor:
    """The dimensions that go as one column of pixels, the others as channels: (1, K, R, 1)."""
    stay, gone = _reduced(x, dims)
    kept = math.prod(x.shape[dim] for dim in stay)
    return x.permute(*stay, *gone).reshape(1, kept, -1, 1)


def _shape_after(x: Tensor, dims: Sequence[int] | None, keepdim: bool) -> list[int]:
    stay, _ = _reduced(x, dims)
    return [x.shape[dim] if dim in stay else 1 for dim in range(x.dim()) if dim in stay or keepdim]


def _mean(x: Tensor, dim: Sequence[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    if dtype not in (None, x.dtype) or not x.dim():
        return NotImplemented
    if x.dim() == 4 and _reduced(x, dim)[1] == [2, 3]:
        if keepdim and dtype is None:
            return NotImplemented
        return x.mean((2, 3), keepdim=True).reshape(_shape_after(x, dim, keepdim))
    return _as_pixels(x, dim).mean((2, 3), keepdim=True).reshape(_shape_after(x, dim, keepdim))


def _sum(x: Tensor, dim: Sequence[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    if dtype not in (None, x.dtype) or not x.is_floating_point() or not x.dim():
        return NotImplemented
    count = math.prod(x.shape[place] for place in _reduced(x, dim)[1])
    return x.mean(_reduced(x, dim)[1], keepdim=keepdim) * float(count)


def _amax(x: Tensor, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
    if not x.dim():
        return NotImplemented
    pixels = _as_pixels(x, dim)
    return torch.max_pool2d(pixels, (pixels.shape[2], 1)).reshape(_shape_after(x, dim, keepdim))


def _amin(x: Tensor, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
    return -_amax(-x, dim, keepdim) if x.dim() else NotImplemented


def _all_mean(x: Tensor, *, dtype: torch.dtype | None = None) -> Any:
    return _mean(x, None, dtype=dtype)


def _all_sum(x: Tensor, *, dtype: torch.dtype | None = None) -> Any:
    return _sum(x, None, dtype=dtype)


def _max_dim(x: Tensor, dim: int, keepdim: bool = False) -> Any:
    return x.amax(dim, keepdim), x.argmax(dim, keepdim)  # the indices go again where nobody reads them


def _var(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    gone = _reduced(x, dim)[1]
    count = math.prod(x.shape[place] for place in gone)
    distance = x - x.mean(gone, keepdim=True)
    spread = (distance * distance).mean(gone, keepdim=keepdim)
    degrees = count - (1 if correction is None else correction)
    return spread if degrees == count else spread * (count / degrees)


def _std(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    return _var(x, dim, correction=correction, keepdim=keepdim).sqrt()


def _var_dim(x: Tensor, dim: Sequence[int] | None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    return _var(x, dim, correction=int(unbiased), keepdim=keepdim)


def _std_dim(x: Tensor, dim: Sequence[int] | None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    return _var(x, dim, correction=int(unbiased), keepdim=keepdim).sqrt()


def _var_mean(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    return _var(x, dim, correction=correction, keepdim=keepdim), x.mean(_reduced(x, dim)[1], keepdim=keepdim)


def _vector_norm(
    x: Tensor,
    ord: float = 2,
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Any:
    if ord not in (1, 2) or dtype not in (None, x.dtype):
        return NotImplemented
    gone = _reduced(x, dim)[1]
    return x.abs().sum(gone, keepdim=keepdim) if ord == 1 else (x * x).sum(gone, keepdim=keepdim).sqrt()


def _group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    grouped = x.reshape(x.shape[0] * num_groups, -1)
    distance = grouped - grouped.mean(1, keepdim=True)
    spread = (distance * distance).mean(1, keepdim=True)
    normal = (distance * torch.rsqrt(spread + eps)).reshape(x.shape)
    along = [1, -1] + [1] * (x.dim() - 2)
    if weight is not None:
        normal = normal * weight.reshape(along)
    return normal if bias is None else normal + bias.reshape(along)


def _instance_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Any:
    if use_input_stats:
        return _group_norm(x, x.shape[1], weight, bias, eps)
    if running_mean is None or running_var is None:
        return NotImplemented
    along = [1, -1] + [1] * (x.dim() - 2)
    normal = (x - running_mean.reshape(along)) * torch.rsqrt(running_var + eps).reshape(along)
    if weight is not None:
        normal = normal * weight.reshape(along)
    return normal if bias is None else normal + bias.reshape(along)


def _rms_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    dims = list(range(-len(normalized_shape), 0))
    square = (x * x).mean(dims, keepdim=True)
    normal = x * torch.rsqrt(square + (torch.finfo(x.dtype).eps if eps is None else eps))
    return normal if weight is None else normal * weight


def _adaptive_avg_pool2d(x: Tensor, output_size: Sequence[int]) -> Any:
    (height, width), (rows, columns) = x.shape[-2:], output_size
    if (rows, columns) == (1, 1):
        return x.mean((-2, -1), keepdim=True)
    if height % rows or width % columns:
        across = x @ _shares(width, columns)
        return (across.transpose(-2, -1) @ _shares(height, rows)).transpose(-2, -1)
    return torch.nn.functional.avg_pool2d(x, (height // rows, width // columns))


def _shares(length: int, count: int) -> Tensor:
    """(length, count): what each of ``count`` means takes of a row, which they overlap on."""
    columns, rows = torch.arange(count)[None], torch.arange(length)[:, None]
    starts = torch.div(columns * length, count, rounding_mode="floor")
    ends = torch.div((columns + 1) * length + count - 1, count, rounding_mode="floor")
    return ((rows >= starts) & (rows < ends)).float() / (ends - starts).float()


def _both(value: Sequence[int]) -> tuple[int, int]:
    """Of a list with one number or two, as operators of torch have it: for height and width."""
    return value[0], value[-1]


def _avg_pool2d(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """XNNPACK counts no padding, and begins no window that is not whole: zeros are put there, and means corrected."""
    sides = list(zip(x.shape[-2:], _both(kernel_size), _both(stride or kernel_size), _both(padding), strict=True))
    is_exact = all((size + 2 * pad - kernel) % step == 0 for size, kernel, step, pad in sides)
    is_padded = any(pad for *_, pad in sides)
    if divisor_override is None and (is_exact or not ceil_mode) and not (is_padded and count_include_pad):
        steps = _both(stride or kernel_size)
        plain = torch.nn.functional.avg_pool2d
        same = plain(x, _both(kernel_size), steps, _both(padding), count_include_pad=False) if ceil_mode else None
        return NotImplemented if same is None else same
    factors, zeros = list[Tensor](), list[int]()
    for size, kernel, step, pad in sides:
        over = size + 2 * pad - kernel
        last = -(-over // step) if ceil_mode else over // step
        last -= ceil_mode and last * step >= size + pad  # no window begins in the padding behind
        starts = [number * step - pad for number in range(last + 1)]
        bounds = (-pad, size + pad) if count_include_pad else (0, size)
        counted = [min(start + kernel, bounds[1]) - max(start, bounds[0]) for start in starts]
        factors.append(torch.stack([torch.full((), kernel / count) for count in counted]))
        zeros = [pad, max(0, starts[-1] + kernel - size), *zeros]
    padded = torch.constant_pad_nd(x, zeros) if any(zeros) else x
    pooled = torch.nn.functional.avg_pool2d(padded, _both(kernel_size), _both(stride or kernel_size))
    if divisor_override is not None:
        return pooled * (math.prod(_both(kernel_size)) / divisor_override)
    if is_exact and count_include_pad:
        return pooled
    return pooled * factors[0][:, None] * factors[1]


def _max_pool2d(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Any:
    """The last row and column again, where the last windows reach beyond them: that changes no maximum.

    XNNPACK's stride is no longer than the kernel: one that is takes some of all windows.
    """
    (rows, columns), kernel_both = _both(stride or kernel_size), _both(kernel_size)
    if not ceil_mode and (rows > kernel_both[0] or columns > kernel_both[1]):
        pooled = torch.max_pool2d(x, kernel_both, 1, _both(padding), _both(dilation))
        pooled = pooled[..., ::rows, :] if rows > 1 else pooled
        return pooled[..., ::columns] if columns > 1 else pooled
    if not ceil_mode or set(dilation) != {1}:
        return NotImplemented
    pairs = zip((-2, -1), _both(kernel_size), _both(stride or kernel_size), _both(padding), strict=True)
    for dim, kernel, step, pad in pairs:
        size = x.shape[dim]
        last = -(-(size + 2 * pad - kernel) // step) * step  # where the last window begins
        if last >= size + pad:
            last -= step
        if (missing := last + kernel - size - 2 * pad) > 0:
            x = torch.cat([x, *[x.narrow(dim, size - 1, 1)] * missing], dim)
    return torch.max_pool2d(x, _both(kernel_size), _both(stride or kernel_size), _both(padding))


def _max_pool1d(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Tensor:
    step = (stride or kernel_size)[0]
    pooled = torch.max_pool2d(
        x.unsqueeze(-2), (1, kernel_size[0]), (1, step), (0, padding[0]), (1, dilation[0]), ceil_mode
    )
    return pooled.squeeze(-2)


def _upsample_nearest(x: Tensor, output_size: Sequence[int] | None, scale_factors: Sequence[float] | None) -> Any:
    sizes = x.shape[2:]
    wanted = output_size or [int(size * factor) for size, factor in zip(sizes, scale_factors or (), strict=True)]
    if any(after % before for before, after in zip(sizes, wanted, strict=True)):
        for dim, (after, step) in enumerate(_sizes(x, output_size, scale_factors), start=2):
            x = _taken(x, dim, [min(int(place * step), x.shape[dim] - 1) for place in range(after)])
        return x
    for dim, (before, after) in enumerate(zip(sizes, wanted, strict=True), start=2):
        if after != before:
            x = x.repeat_interleave(after // before, dim)
    return x


def _taken(x: Tensor, dim: int, indexes: Sequence[int]) -> Tensor:
    """These entries along a dimension: runs of neighbours as slices, side by side."""
    pieces: list[Tensor] = []
    start = 0
    while start < len(indexes):
        end = start + 1
        while end < len(indexes) and indexes[end] == indexes[end - 1] + 1:
            end += 1
        pieces.append(x.narrow(dim, indexes[start], end - start))
        start = end
    return torch.cat(pieces, dim) if len(pieces) > 1 else pieces[0]


def _pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """What stands beyond the border is in it: mirrored, as the last entry, or from the other side."""
    if mode == "constant":
        return torch.constant_pad_nd(x, list(pad), value or 0.0)
    for number in range(len(pad) // 2):
        dim, (before, after) = x.dim() - 1 - number, pad[2 * number : 2 * number + 2]
        last = x.shape[dim] - 1
        wanted = range(-before, last + 1 + after)
        if min(before, after) < 0 or mode not in ("reflect", "replicate", "circular"):
            return NotImplemented
        if mode == "reflect":
            x = _taken(x, dim, [last - abs(last - abs(index)) for index in wanted])
        elif mode == "replicate":
            x = _taken(x, dim, [min(max(index, 0), last) for index in wanted])
        else:
            x = _taken(x, dim, [index % (last + 1) for index in wanted])
    return x


def _sizes(x: Tensor, output_size: Sequence[int] | None, factors: Sequence[float] | None) -> list[tuple[int, float]]:
    """Of each dimension that is resized: its new length, and how far apart its entries are in the old one."""
    sizes = list(x.shape[2:])
    if output_size is not None:
        return [(after, before / after) for before, after in zip(sizes, output_size, strict=True)]
    return [(int(before * factor), 1 / factor) for before, factor in zip(sizes, factors or (), strict=True)]


def _upsample_nearest_exact(x: Tensor, output_size: Sequence[int] | None, scale_factors: Sequence[float] | None) -> Any:
    for dim, (after, step) in enumerate(_sizes(x, output_size, scale_factors), start=2):
        last = x.shape[dim] - 1
        x = _taken(x, dim, [min(int((place + 0.5) * step), last) for place in range(after)])
    return x


def _linear(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0.0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' with -0.75, as torch has it."""
    t = distance.abs()
    near, far = (1.25 * t - 2.25) * t * t + 1, ((-0.75 * t + 3.75) * t - 6) * t + 3
    return torch.where(t <= 1, near, torch.where(t < 2, far, 0.0))


def _upsample_by(weight: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """A product with what each new entry takes of the old ones; what lies beyond the border is as the border."""

    def form(
        x: Tensor, output_size: Sequence[int] | None, align_corners: bool, scale_factors: Sequence[float] | None
    ) -> Tensor:
        for dim, (after, step) in enumerate(_sizes(x, output_size, scale_factors), start=2):
            before, places = x.shape[dim], torch.arange(after, dtype=x.dtype)
            corners = places * ((before - 1) / max(after - 1, 1))
            at = corners if align_corners else (places + 0.5) * step - 0.5
            if weight is _linear:
                at = at.clamp(0.0, before - 1.0)
            shares = weight(at - torch.arange(-2, before + 2, dtype=x.dtype)[:, None])  # (before + 4, after)
            first, last = shares[:3].sum(0, keepdim=True), shares[-3:].sum(0, keepdim=True)
            shares = torch.cat([first, shares[3:-3], last]) if before > 1 else shares.sum(0, keepdim=True)
            x = (x.transpose(dim, -1) @ shares).transpose(dim, -1)
        return x

    return form


def _unfold(x: Tensor, dim: int, size: int, step: int) -> Tensor:
    """Windows along a dimension; their entries come last."""
    dim %= x.dim()
    order = [*[place for place in range(x.dim()) if place != dim], dim]
    starts = range(0, x.shape[dim] - size + 1, step)
    return torch.stack([x.narrow(dim, start, size).permute(order) for start in starts], dim)


def _col2im(
    x: Tensor,
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Any:
    """A transposed convolution of each channel with every kernel that has a single 1."""
    if x.dim() != 3:
        return NotImplemented
    (rows, columns), steps = _both(kernel_size), _both(stride)
    reach = zip(output_size, (rows, columns), _both(dilation), _both(padding), steps, strict=True)
    spans = [size + 2 * pad - spread * (kernel - 1) - 1 for size, kernel, spread, pad, _ in reach]
    blocks = [span // step + 1 for span, step in zip(spans, steps, strict=True)]
    rest = [span % step for span, step in zip(spans, steps, strict=True)]
    channels = x.shape[1] // (rows * columns)
    kernels = torch.cat([torch.eye(rows * columns).reshape(-1, 1, rows, columns)] * channels)
    return torch.conv_transpose2d(
        x.reshape(x.shape[0], -1, *blocks), kernels, None, steps, _both(padding), rest, channels, _both(dilation)
    )


def _im2col(
    x: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """A convolution of each channel with every kernel that has a single 1."""
    rows, columns = _both(kernel_size)
    places = torch.eye(rows * columns).reshape(-1, 1, rows, columns)
    kernels = torch.cat([places] * x.shape[1])
    return torch.conv2d(x, kernels, None, _both(stride), _both(padding), _both(dilation), groups=x.shape[1]).flatten(2)


def _adaptive_max_pool2d(x: Tensor, output_size: Sequence[int]) -> Any:
    """Largest values and where they stand; the latter go again, for nobody reads them as a rule."""
    largest = x
    for dim, count in zip((-2, -1), output_size, strict=True):
        length = x.shape[dim]
        starts = [number * length // count for number in range(count)]
        ends = [-(-(number + 1) * length // count) for number in range(count)]
        windows = [
            largest.narrow(dim, start, end - start).amax(dim, keepdim=True)
            for start, end in zip(starts, ends, strict=True)
        ]
        largest = torch.cat(windows, dim) if count > 1 else windows[0]
    return largest, x.flatten(-2).argmax(-1, keepdim=True)[..., None].expand(largest.shape)


def _adaptive_max_pool1d(x: Tensor, output_size: Sequence[int]) -> Any:
    largest, places = _adaptive_max_pool2d(x.unsqueeze(-2), (1, output_size[0]))
    return largest.squeeze(-2), places.squeeze(-2)


def _avg_pool3d(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Over the first of three dimensions alone, one step at a time, as local response norm pools channels."""
    if tuple(kernel_size)[1:] != (1, 1) or set(stride or (1,)) != {1} or set(padding) != {0} or divisor_override:
        return NotImplemented
    count = x.shape[-3] - kernel_size[0] + 1
    total = x.narrow(-3, 0, count)
    for start in range(1, kernel_size[0]):
        total = total + x.narrow(-3, start, count)
    return total * (1 / kernel_size[0])


def _slice(x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    """Of every ``step``-th entry: the first of each ``step`` of them."""
    if step == 1:
        return NotImplemented
    dim %= x.dim()
    length = x.shape[dim]
    wanted = range(*slice(start, end, step).indices(length))
    if not len(wanted):
        return NotImplemented
    last = wanted.start + len(wanted) * step
    if last > length:  # the last group is not whole
        padding = [0] * (2 * (x.dim() - dim))
        padding[-1] = last - length
        x = torch.constant_pad_nd(x, padding)
    grouped = x.narrow(dim, wanted.start, last - wanted.start)
    grouped = grouped.reshape(*x.shape[:dim], len(wanted), step, *x.shape[dim + 1 :])
    return grouped.narrow(dim + 1, 0, 1).squeeze(dim + 1)


def _select(x: Tensor, dim: int, index: int) -> Tensor:
    dim %= x.dim()
    one = x.narrow(dim, index % x.shape[dim], 1)
    return one.reshape([size for place, size in enumerate(x.shape) if place != dim])


def _unbind(x: Tensor, dim: int = 0) -> list[Tensor]:
    return [x.select(dim, index) for index in range(x.shape[dim])]


def _split(x: Tensor, split_size: int, dim: int = 0) -> list[Tensor]:
    length = x.shape[dim]
    return [x.narrow(dim, start, min(split_size, length - start)) for start in range(0, length, split_size)]


def _chunk(x: Tensor, chunks: int, dim: int = 0) -> list[Tensor]:
    return _split(x, -(-x.shape[dim] // chunks), dim)


def _split_with_sizes(x: Tensor, split_sizes: Sequence[int], dim: int = 0) -> list[Tensor]:
    starts = [sum(split_sizes[:place]) for place in range(len(split_sizes))]
    return [x.narrow(dim, start, size) for start, size in zip(starts, split_sizes, strict=True)]


def _roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Any:
    if not dims:
        return NotImplemented
    for shift, dim in zip(shifts, dims, strict=True):
        length = x.shape[dim]
        if moved := shift % length:
            x = torch.cat([x.narrow(dim, length - moved, moved), x.narrow(dim, 0, length - moved)], dim)
    return x


def _flip(x: Tensor, dims: Sequence[int]) -> Tensor:
    for dim in dims:
        x = torch.cat([x.narrow(dim, place, 1) for place in reversed(range(x.shape[dim]))], dim)
    return x


def _gelu(x: Tensor, *, approximate: str = "none") -> Any:
    if approximate == "none":
        return NotImplemented
    # XNNPACK's GELU is the exact one, whatever the graph says. (1 + tanh z) / 2 = sigmoid(2 z).
    return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))


def _elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    below = ((x * input_scale).clamp(max=0.0).exp() - 1.0) * (alpha * scale)
    return torch.relu(x) * scale + below


def _celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    return _elu(x, alpha, 1, 1 / alpha)


def _selu(x: Tensor) -> Tensor:
    return _elu(x, 1.6732632423543772, 1.0507009873554805)


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    along = [1, -1] + [1] * (x.dim() - 2) if x.dim() > 1 else [-1]
    return torch.relu(x) - torch.relu(-x) * weight.reshape(along)


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    scaled = x * beta
    return (torch.relu(scaled) + torch.log((-scaled.abs()).exp() + 1.0)) * (1 / beta)


def _mish(x: Tensor) -> Tensor:
    return x * torch.tanh(torch.nn.functional.softplus(x))


def _hardsigmoid(x: Tensor) -> Tensor:
    return (x + 3.0).clamp(0.0, 6.0) * (1 / 6)


def _log_softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Any:
    if dtype not in (None, x.dtype):
        return NotImplemented
    shifted = x - x.amax(dim, keepdim=True)
    return shifted - shifted.exp().sum(dim, keepdim=True).log()


def _pow(x: Tensor, exponent: float) -> Any:
    if exponent == int(exponent) and 1 <= exponent <= 8:
        product = x
        for _ in range(int(exponent) - 1):
            product = product * x
        return product
    known: dict[float, Callable[[Tensor], Tensor]] = {0.5: torch.sqrt, -0.5: torch.rsqrt, -1: torch.reciprocal}
    if exponent in known:
        return known[exponent](x)
    return NotImplemented if exponent == int(exponent) else (x.log() * exponent).exp()


def _pow_tensor(x: Tensor, exponent: Tensor) -> Any:
    """For an exponent that is learned; what is below 0 becomes NaN, as in torch for exponents that are no integers."""
    return (x.log() * exponent).exp() if x.is_floating_point() else NotImplemented


def _log_sigmoid(x: Tensor) -> Tensor:
    return -_softplus(-x)


def _rrelu(x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, generator: Any = None) -> Any:
    return NotImplemented if training else torch.relu(x) - torch.relu(-x) * ((lower + upper) / 2)


def _cumsum(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    """A product with a triangular matrix of ones."""
    if dtype not in (None, x.dtype) or not x.is_floating_point() or not x.dim():
        return NotImplemented
    length = x.shape[dim]
    return (x.transpose(dim, -1) @ torch.ones(length, length, dtype=x.dtype).triu()).transpose(dim, -1)


def _cdist(first: Tensor, second: Tensor, p: float = 2.0, compute_mode: int | None = None) -> Any:
    """(…, P, M) and (…, R, M) -> (…, P, R)."""
    if p not in (1.0, 2.0):
        return NotImplemented
    distance = first.unsqueeze(-2) - second.unsqueeze(-3)
    return distance.abs().sum(-1) if p == 1 else (distance * distance).sum(-1).sqrt()


def _bilinear(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(…, I), (…, J) and (K, I, J) -> (…, K)."""
    outputs, rows, columns = weight.shape
    mixed = first @ weight.permute(1, 0, 2).reshape(rows, outputs * columns)
    mixed = mixed.reshape(*first.shape[:-1], outputs, columns) @ second.unsqueeze(-1)
    product = mixed.squeeze(-1)
    return product if bias is None else product + bias


def _filled(value: float) -> Callable[..., Any]:
    """Zeros and ones as large as another tensor depend on nothing."""

    def form(x: Tensor, size: Sequence[int] | None = None, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
        return torch.full(list(x.shape if size is None else size), value, dtype=dtype or x.dtype)

    return form


def _slice_scatter(
    x: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    """What is assigned to a slice between what stands before and behind it."""
    dim %= x.dim()
    length = x.shape[dim]
    wanted = range(*slice(start, end, step).indices(length))
    if step != 1 or not len(wanted):
        return NotImplemented
    pieces = [x.narrow(dim, 0, wanted.start), src, x.narrow(dim, wanted.stop, length - wanted.stop)]
    pieces = [piece for piece in pieces if piece.shape[dim]]
    return torch.cat(pieces, dim) if len(pieces) > 1 else src


def _select_scatter(x: Tensor, src: Tensor, dim: int, index: int) -> Any:
    dim %= x.dim()
    index %= x.shape[dim]
    return _slice_scatter(x, src.unsqueeze(dim), dim, index, index + 1)


def _in_one_type(operator: Any) -> Callable[..., Any]:
    """Sums and products with integers that are no scalars: ``x / torch.arange(8)``."""

    def form(x: Any, other: Any, **options: Any) -> Any:
        if not (isinstance(x, Tensor) and isinstance(other, Tensor)) or x.dtype == other.dtype:
            return NotImplemented
        if x.is_floating_point() == other.is_floating_point():
            return NotImplemented
        wanted = x.dtype if x.is_floating_point() else other.dtype
        return operator(x.to(wanted), other.to(wanted), **options)

    return form


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Any:
    return tensors[0] if len(tensors) == 1 else NotImplemented


def _sign(x: Tensor) -> Any:
    """Of what is no less than the smallest normal number, and 0."""
    return ((x * 1e19).clamp(-1e19, 1e19) * 1e19).clamp(-1.0, 1.0) if x.is_floating_point() else NotImplemented


def _copy(x: Tensor, src: Tensor, non_blocking: bool = False) -> Any:
    return _expand(src, list(x.shape)) if src.dtype == x.dtype else NotImplemented


def _fill(x: Tensor, value: float) -> Tensor:
    return torch.full(list(x.shape), value, dtype=x.dtype)


def _fill_tensor(x: Tensor, value: Tensor) -> Tensor:
    return _expand(value.to(x.dtype).reshape([1] * x.dim()), list(x.shape))


def _lerp(x: Tensor, end: Tensor, weight: float) -> Tensor:
    return x + (end - x) * float(weight)


def _addcmul(x: Tensor, first: Tensor, second: Tensor, *, value: float = 1) -> Tensor:
    return x + first * second * float(value)


def _expm1(x: Tensor) -> Tensor:
    return x.exp() - 1.0


def _log1p(x: Tensor) -> Tensor:
    return (x + 1.0).log()


def _logsumexp(x: Tensor, dim: Sequence[int], keepdim: bool = False) -> Tensor:
    gone = _reduced(x, dim)[1]
    largest = x.amax(gone, keepdim=True)
    total: Tensor = (x - largest).exp().sum(gone, keepdim=True).log() + largest
    return total.reshape(_shape_after(x, dim, keepdim))


def _clamp_tensor(x: Tensor, min: Tensor | None = None, max: Tensor | None = None) -> Tensor:
    above = x if min is None else torch.maximum(x, min)
    return above if max is None else torch.minimum(above, max)


def _cosine_similarity(first: Tensor, second: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    lengths = [(x * x).sum(dim, keepdim=True).sqrt().clamp(min=eps) for x in (first, second)]
    return ((first / lengths[0]) * (second / lengths[1])).sum(dim)


def _reciprocal(x: Tensor) -> Tensor:
    return torch.div(torch.ones([1] * x.dim(), dtype=x.dtype), x)


def _rsub(x: Tensor, other: Any, alpha: float = 1) -> Any:
    if alpha != 1:
        return NotImplemented
    return -x + float(other)


def _masked_fill(x: Tensor, mask: Tensor, value: float) -> Any:
    """Where the mask is known beforehand, a product and a sum with numbers that are."""
    if not x.is_floating_point():
        return NotImplemented
    filled = mask.to(x.dtype)
    return x * (1.0 - filled) + filled * max(min(value, -_lowest(x)), _lowest(x))


def _where(condition: Tensor, x: Tensor, other: Tensor) -> Any:
    if condition.dtype != torch.bool or not x.is_floating_point() or x.dtype != other.dtype:
        return NotImplemented
    chosen = condition.to(x.dtype)
    if not x.dim():
        x = x.clamp(_lowest(x), -_lowest(x))
    if not other.dim():
        other = other.clamp(_lowest(other), -_lowest(other))
    return x * chosen + other * (1.0 - chosen)


_WITH_SCALARS = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}

# Operator -> its form.
FORMS: dict[Any, Callable[..., Any]] = {
    aten.expand.default: _expand,
    aten.expand_as.default: _expand_as,
    aten.repeat.default: _repeat,
    aten.repeat_interleave.self_int: _repeat_interleave,
    aten.unsqueeze.default: _unsqueeze,
    aten.squeeze.default: _squeeze,
    aten.squeeze.dim: _squeeze,
    aten.squeeze.dims: _squeeze,
    aten.matmul.default: _matmul,
    aten.scaled_dot_product_attention.default: _attention,
    aten._native_multi_head_attention.default: _multi_head_attention,
    aten._transformer_encoder_layer_fwd.default: _encoder_layer,
    aten.softmax.int: _softmax,
    aten._safe_softmax.default: _softmax,
    aten.log_softmax.int: _log_softmax,
    aten.mean.default: _all_mean,
    aten.mean.dim: _mean,
    aten.sum.default: _all_sum,
    aten.sum.dim_IntList: _sum,
    aten.amax.default: _amax,
    aten.amin.default: _amin,
    aten.max.dim: _max_dim,
    aten.var.dim: _var_dim,
    aten.var.correction: _var,
    aten.var_mean.correction: _var_mean,
    aten.std.dim: _std_dim,
    aten.std.correction: _std,
    aten.linalg_vector_norm.default: _vector_norm,
    aten.norm.ScalarOpt_dim: _vector_norm,
    aten.cosine_similarity.default: _cosine_similarity,
    aten.logsumexp.default: _logsumexp,
    aten.group_norm.default: _group_norm,
    aten.instance_norm.default: _instance_norm,
    aten.rms_norm.default: _rms_norm,
    aten.adaptive_avg_pool2d.default: _adaptive_avg_pool2d,
    aten.adaptive_max_pool2d.default: _adaptive_max_pool2d,
    aten.adaptive_max_pool1d.default: _adaptive_max_pool1d,
    aten.avg_pool3d.default: _avg_pool3d,
    aten.pad.default: _pad,
    aten.avg_pool2d.default: _avg_pool2d,
    aten.max_pool2d.default: _max_pool2d,
    aten.max_pool1d.default: _max_pool1d,
    aten.upsample_nearest1d.vec: _upsample_nearest,
    aten.upsample_nearest2d.vec: _upsample_nearest,
    aten._upsample_nearest_exact1d.vec: _upsample_nearest_exact,
    aten._upsample_nearest_exact2d.vec: _upsample_nearest_exact,
    aten.upsample_linear1d.vec: _upsample_by(_linear),
    aten.upsample_bicubic2d.vec: _upsample_by(_cubic),
    aten.im2col.default: _im2col,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.unbind.int: _unbind,
    aten.split.Tensor: _split,
    aten.chunk.default: _chunk,
    aten.unsafe_chunk.default: _chunk,
    aten.unsafe_split.Tensor: _split,
    aten.unsafe_split_with_sizes.default: _split_with_sizes,
    aten.split_with_sizes.default: _split_with_sizes,
    aten.roll.default: _roll,
    aten.flip.default: _flip,
    aten.gelu.default: _gelu,
    aten.elu.default: _elu,
    aten.celu.default: _celu,
    aten.selu.default: _selu,
    aten.prelu.default: _prelu,
    aten.softplus.default: _softplus,
    aten.mish.default: _mish,
    aten.hardsigmoid.default: _hardsigmoid,
    aten.pow.Tensor_Scalar: _pow,
    aten.pow.Tensor_Tensor: _pow_tensor,
    aten.log_sigmoid.default: _log_sigmoid,
    aten.rrelu.default: _rrelu,
    aten.cumsum.default: _cumsum,
    aten.cdist.default: _cdist,
    aten.bilinear.default: _bilinear,
    aten.zeros_like.default: _filled(0.0),
    aten.ones_like.default: _filled(1.0),
    aten.new_zeros.default: _filled(0.0),
    aten.new_ones.default: _filled(1.0),
    aten.slice_scatter.default: _slice_scatter,
    aten.select_scatter.default: _select_scatter,
    aten.copy.default: _copy,
    aten.cat.default: _cat,
    aten.sign.default: _sign,
    aten.fill.Scalar: _fill,
    aten.fill.Tensor: _fill_tensor,
    aten.unfold.default: _unfold,
    aten.col2im.default: _col2im,
    aten.reciprocal.default: _reciprocal,
    aten.rsub.Scalar: _rsub,
    aten.lerp.Scalar: _lerp,
    aten.addcmul.default: _addcmul,
    aten.expm1.default: _expm1,
    aten.log1p.default: _log1p,
    aten.clamp.Tensor: _clamp_tensor,
    aten.masked_fill.Scalar: _masked_fill,
    aten.where.self: _where,
}

# Composed of others in torch itself: taken apart into those.
_COMPOSED = (
    aten.einsum.default,
    aten.tile.default,
    aten.where.Scalar,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
    aten.adaptive_avg_pool1d.default,
)
_DEFAULTS = torch.export.default_decompositions()
FORMS |= {operator: _DEFAULTS[operator] for operator in _COMPOSED}
FORMS |= {operator: _in_one_type(operator) for operator in _WITH_SCALARS}


def _unrolled(operator: Any) -> Callable[..., Any]:
    """A recurrent layer as its steps, one after another."""

    def form(x: Tensor, *arguments: Any, **options: Any) -> Any:
        is_short = max(x.shape[:2]) <= _MAX_STEPS  # (B, T, D) or (T, B, D), and B is 1
        return _DEFAULTS[operator](x, *arguments, **options) if is_short else NotImplemented

    return form


_MAX_STEPS = 256  # a few minutes to lower
_RECURRENT = (aten.gru.input, aten.lstm.input, aten.rnn_relu.input, aten.rnn_tanh.input)
FORMS |= {operator: _unrolled(operator) for operator in _RECURRENT}
