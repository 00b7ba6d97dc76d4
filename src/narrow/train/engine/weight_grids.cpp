// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/engine/weight_grids.h"

#include "narrow/train/engine/bridge.h"

namespace narrow::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

/// y forward, backward as if it were x.
struct PassThrough : torch::autograd::Function<PassThrough> {
  static torch::Tensor forward(AutogradContext* /*context*/, const torch::Tensor& /*x*/,
                               const torch::Tensor& y) {
    return y;
  }
  static tensor_list backward(AutogradContext* /*context*/, const tensor_list& gradients) {
    return {gradients[0], torch::Tensor()};
  }
};

}  // namespace

torch::Tensor round_to_blocks(const torch::Tensor& x, BlockType type) {
  const torch::Tensor c = x.detach().contiguous();
  const int64_t columns = c.size(-1);
  const auto count = static_cast<size_t>(c.numel());
  std::vector<std::byte> bytes(count / static_cast<size_t>(columns) * row_bytes(type, columns));
  EncodeOptions options;
  options.method = EncodeMethod::rtn;
  encode_rows(type, {c.data_ptr<float>(), count}, columns, bytes, options);
  const torch::Tensor y = torch::empty_like(c);
  decode_rows(type, bytes, columns, {y.data_ptr<float>(), count});
  return PassThrough::apply(x, y);
}

torch::Tensor round_dynamically(const torch::Tensor& x, const DynamicGrid& grid) {
  torch::Tensor y;
  {
    const torch::NoGradGuard guard;
    const int64_t last = x.size(-1);
    const int64_t width = grid.width > 0 ? grid.width : last;
    const int64_t rest = (grid.block - width % grid.block) % grid.block;
    torch::Tensor rows = x.reshape({-1, width});
    if (rest > 0) rows = torch::constant_pad_nd(rows, {0, rest});
    const torch::Tensor blocks = rows.reshape({-1, grid.block});
    constexpr float kLargest = 127;
    const torch::Tensor scale = blocks.abs().amax({1}, true) / kLargest;
    const torch::Tensor codes =
        torch::where(scale > 0, blocks / scale, torch::zeros({}, x.options()))
            .clamp_(-kLargest, kLargest)
            .round_();
    y = (codes * scale).reshape(rows.sizes()).narrow(1, 0, width).reshape(x.sizes());
  }
  return PassThrough::apply(x, y);
}

LowRank::LowRank(const Adapter& adapter)
    : a(to_torch(adapter.a).set_requires_grad(true)),
      b(to_torch(adapter.b).set_requires_grad(true)),
      scale(adapter.scale),
      transposed(adapter.transposed),
      merged(adapter.merged) {}

torch::Tensor LowRank::change(const torch::Tensor& w) const {
  const torch::Tensor product = torch::mm(b, a) * scale;
  return (transposed ? product.t() : product).reshape(w.sizes());
}

}  // namespace narrow::train
