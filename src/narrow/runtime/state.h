// SPDX-License-Identifier: Apache-2.0
// What a session keeps from one run to the next: an input and an output of the graph declared to be
// the same memory, such as a cache of keys and values that each run extends.
//
//   SessionOptions options;
//   options.states = {{"past_keys", "keys"}, {"past_values", "values"}};
//   Session session(graph, options);
//   State sequence = session.make_state();          // zeros
//   auto logits = session.run({tokens}, sequence);  // reads it and leaves the new one there
//
// Several states serve several sequences on one session. A state belongs to the session that made
// it.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "narrow/core/tensor.h"

namespace narrow {

/// Names of a graph input and of the output that becomes it in the next run: equal types and
/// shapes.
struct StatePair {
  std::string input;
  std::string output;
};

class State {
 public:
  State(State&&) noexcept;
  State& operator=(State&&) noexcept;
  ~State();

  /// All zeros again.
  void reset();
  size_t bytes() const;
  /// A second sequence that begins with what this one holds.
  State clone() const;
  /// The memory behind a declared input, as the last run left it. It stays where it is; runs write
  /// into it. Throws not_found.
  const Tensor& tensor(std::string_view input) const;

  struct Impl;  // the runtime's own

 private:
  friend class Session;
  explicit State(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace narrow
