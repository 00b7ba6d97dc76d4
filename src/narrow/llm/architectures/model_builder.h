// SPDX-License-Identifier: Apache-2.0
// Pieces of language models as nodes of a graph: what the builders of architectures are made of.
#pragma once

#include <memory>
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
  ModelBuilder(const Checkpoint& checkpoint, const GraphOptions& options)
      : checkpoint_(checkpoint),
        config_(checkpoint.config()),
        form_(options.form),
        tied_table_(options.tied_table) {}

  const ModelConfig& config() const { return config_; }
  Graph& graph() { return graph_; }

  /// The first output of a new node; `name` is the node's and the value's.
  ValueId add(std::string op, std::vector<ValueId> inputs, const std::string& name,
              Attributes attributes = {}, std::string domain = "");
  /// The value of this name, made by `make` where there is none.
  template <class F>
  ValueId known_or(const std::string& name, F&& make) {
    const auto known = graph_.find_value(name);
    return known ? *known : make();
  }
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
  /// `positions` are absent where `tables` are of the tokens themselves.
  ValueId rotated(ValueId x, int64_t heads, std::pair<ValueId, ValueId> tables, ValueId positions,
                  const std::string& name);
  Attributes attention_attributes(int64_t layer) const;

  // Of GraphForm::onnx.
  /// What a token sees: all that count, and always itself, as padding would otherwise be a mean
  /// over nothing. Boolean [batch, 1, length, total]: programs want the queries' axis written out.
  ValueId padding_mask(ValueId ids, ValueId attention_mask);
  /// The same without what stands behind it, and (window > 0) without what lies `window` tokens
  /// back or more.
  ValueId causal_mask(ValueId ids, ValueId attention_mask, int64_t window);
  /// Cosines and sines for positions [batch, length]: [batch, length, rope_dim / 2].
  std::pair<ValueId, ValueId> rope_angles(const std::string& name, ValueId positions, bool local);

 private:
  ValueId length_of(ValueId ids);
  ValueId second_dim(ValueId of, const std::string& name);
  ValueId matrix(const std::string& weight);
  ValueId mask_keys(ValueId attention_mask);
  ValueId mask_queries(ValueId ids, ValueId attention_mask);
  ValueId placeholder(const std::string& name, Dims dims);
  ValueId columns(const std::string& weight, const std::string& name);
  std::vector<double> rope_frequencies(bool local) const;

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  GraphForm form_;
  bool tied_table_;
  Graph graph_;
  std::shared_ptr<const void> zeros_;  // behind all placeholders
};

Graph build_decoder(const Checkpoint& checkpoint, const GraphOptions& options);
Graph build_encoder(const Checkpoint& checkpoint, const GraphOptions& options);

}  // namespace narrow::llm
