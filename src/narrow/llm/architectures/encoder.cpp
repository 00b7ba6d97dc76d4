// SPDX-License-Identifier: Apache-2.0
// Encoders: bert.
#include <fmt/format.h>

#include "narrow/llm/architectures/model_builder.h"

namespace narrow::llm {

Graph build_encoder(const Checkpoint& checkpoint, const GraphOptions& options) {
  ModelBuilder b(checkpoint, options);
  const ModelConfig& c = b.config();
  Graph& graph = b.graph();
  graph.name = c.architecture;
  const bool onnx = options.form == GraphForm::onnx;
  const Dim batch = Dim::symbol("batch");
  const SymbolicShape tokens{batch, Dim::symbol("length")};
  const ValueId ids = graph.add_input("input_ids", DType::int64, tokens);
  ValueId valid = kNoId;
  ValueId mask = kNoId;
  if (onnx) mask = b.padding_mask(ids, graph.add_input("attention_mask", DType::int64, tokens));
  const ValueId types =
      graph.add_input(onnx ? "token_type_ids" : "token_types", DType::int64, tokens);
  if (!onnx) valid = graph.add_input("valid_length", DType::int64, SymbolicShape{batch});
  const ValueId zeros = b.constant("zeros", Tensor::vector<int64_t>({0}));
  const ValueId positions = b.position_ids(ids, zeros);
  ValueId x = b.add("Add", {b.embedding("token_embd", ids), b.embedding("token_types", types)},
                    "embedded_types");
  x = b.add("Add", {x, b.embedding("position_embd", positions)}, "embedded");
  x = b.norm("token_embd_norm", x);
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    const std::string block = fmt::format("blk.{}.", layer);
    const ModelBuilder::Projections p = b.projections(block, x);
    Attributes attributes = b.attention_attributes(layer);
    attributes["q_num_heads"] = c.heads;
    attributes["kv_num_heads"] = c.kv_heads;
    std::vector<ValueId> inputs{p.q, p.k, p.v};
    if (onnx) {
      inputs.push_back(mask);
    } else {
      inputs.insert(inputs.end(), {kNoId, kNoId, kNoId, valid});
    }
    ValueId y = b.add("Attention", std::move(inputs), block + "attn", attributes);
    y = b.linear(block + "attn_output", y);
    x = b.norm(block + "attn_output_norm", b.add("Add", {x, y}, block + "attn_residual"));
    y = b.feed_forward(block, x);
    x = b.norm(block + "layer_output_norm", b.add("Add", {x, y}, block + "ffn_residual"));
  }
  graph.add_output(b.add("Identity", {x}, onnx ? "last_hidden_state" : "hidden"));
  return std::move(graph);
}

}  // namespace narrow::llm
