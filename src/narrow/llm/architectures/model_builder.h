// SPDX-License-Identifier: Apache-2.0
// Pieces of language models as nodes of a graph: what the builders of architectures are made of.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "narrow/graph/graph.h"
#include "narrow/llm/architectures/build.h"
#include "narrow/llm/checkpoint.h"

namespace narrow::llm {

class ModelBuilder {
 public:
  explicit ModelBuilder(const Checkpoint& checkpoint)
      : checkpoint_(checkpoint), config_(checkpoint.config()) {}

  const ModelConfig& config() const { return config_; }
  Graph& graph() { return graph_; }

  /// The first output of a new node; `name` is the node's and the value's.
  ValueId add(std::string op, std::vector<ValueId> inputs, const std::string& name,
              Attributes attributes = {}, std::string domain = "");
  /// A constant, shared by those that ask for the same name.
  ValueId constant(const std::string& name, const Tensor& value);

  /// Rows of the table `name` (".weight" is added) by ids; float32.
  ValueId embedding(const std::string& name, ValueId ids);
  /// x times the matrix `name`, plus its bias where the model has one.
  ValueId linear(const std::string& name, ValueId x);
  /// The same with another name for node and value (an output matrix that is the embedding).
  ValueId linear_as(const std::string& weight, ValueId x, const std::string& name);
  /// The norm `name` over the last axis, as the config says.
  ValueId norm(const std::string& name, ValueId x);
  /// The norm over each head of x [batch, length, heads * head_dim].
  ValueId head_norm(const std::string& name, ValueId x, int64_t heads);
  ValueId activation(ValueId x, const std::string& name);
  /// down(act(gate(x)) * up(x)), or down(act(up(x))).
  ValueId feed_forward(const std::string& block, ValueId x);
  ValueId scaled(ValueId x, double factor, const std::string& name);
  /// cap * tanh(x / cap).
  ValueId softcapped(ValueId x, double cap, const std::string& name);

  /// Query, key and value of x, biases added.
  struct Projections {
    ValueId q;
    ValueId k;
    ValueId v;
  };
  Projections projections(const std::string& block, ValueId x);

  /// position [batch] + (0, 1, .. length - 1) of `ids` [batch, length].
  ValueId position_ids(ValueId ids, ValueId position);
  /// position [batch] + length.
  ValueId total_length(ValueId ids, ValueId position);
  /// Tables of rope for `positions` positions: cosines and sines of one theta.
  std::pair<ValueId, ValueId> rope_tables(const std::string& name, int64_t positions, bool local);
  ValueId rotated(ValueId x, int64_t heads, std::pair<ValueId, ValueId> tables, ValueId positions,
                  const std::string& name);
  Attributes attention_attributes(int64_t layer) const;

 private:
  ValueId length_of(ValueId ids);
  ValueId matrix(const std::string& weight);

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  Graph graph_;
};

Graph build_decoder(const Checkpoint& checkpoint, const GraphOptions& options);
Graph build_encoder(const Checkpoint& checkpoint, const GraphOptions& options);

}  // namespace narrow::llm
