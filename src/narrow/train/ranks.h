// SPDX-License-Identifier: Apache-2.0
// Several processes that do one job together: each is a rank. They are started by torchrun or
// mpirun, or by hand with the variables that torchrun sets.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace narrow::train {

struct RankPlace {
  int rank = 0;
  int size = 1;
  std::string address;  // of rank 0
  uint16_t port = 0;
};

/// From RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; rank and size also as Open MPI and MPICH
/// name them, the address then being this machine's unless it is given. nullopt for a process
/// of its own (no variables, or a size of 1). Throws invalid_argument naming the variable that
/// makes no sense.
std::optional<RankPlace> rank_place();

/// Calls block until all ranks make the same one. Throw io_error when a rank is gone.
class Ranks {
 public:
  virtual ~Ranks() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  bool first() const { return rank() == 0; }
  /// Each element becomes the sum over ranks, the same bits everywhere.
  virtual void sum(std::span<float> values) = 0;
  /// What rank 0 says.
  virtual double from_first(double value) = 0;
  /// What each rank says, by rank.
  virtual std::vector<std::string> gather(const std::string& bytes) = 0;
};

}  // namespace narrow::train
