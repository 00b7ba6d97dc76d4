// SPDX-License-Identifier: Apache-2.0
#include "narrow/train/ranks.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <initializer_list>
#include <string_view>

#include "narrow/core/error.h"

namespace narrow::train {
namespace {

constexpr int kMostRanks = 4096;
constexpr uint16_t kDefaultPort = 29500;  // torchrun's

struct Variable {
  const char* name = nullptr;
  std::string_view value;
};

Variable first_of(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const char* value = std::getenv(name);
    if (value != nullptr && *value != '\0') return {name, value};
  }
  return {};
}

int number(const Variable& variable, int low, int high) {
  int value = 0;
  const char* end = variable.value.data() + variable.value.size();
  const auto [rest, error] = std::from_chars(variable.value.data(), end, value);
  if (error == std::errc() && rest == end && value >= low && value <= high) return value;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{} is '{}', not a number from {} to {}", variable.name, variable.value,
                          low, high),
              "unset it to run one process, or start with torchrun or mpirun");
}

}  // namespace

std::optional<RankPlace> rank_place() {
  // Slurm's own variables stand in every job, also where one process runs: not asked.
  const Variable size = first_of({"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"});
  if (size.name == nullptr) return std::nullopt;
  RankPlace place;
  place.size = number(size, 1, kMostRanks);
  if (place.size == 1) return std::nullopt;
  const Variable rank = first_of({"RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"});
  if (rank.name == nullptr) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{} is set, RANK is not", size.name),
                "start with torchrun or mpirun, which set both");
  }
  place.rank = number(rank, 0, place.size - 1);
  const Variable address = first_of({"MASTER_ADDR"});
  place.address = address.name != nullptr ? std::string(address.value) : "127.0.0.1";
  const Variable port = first_of({"MASTER_PORT"});
  place.port = port.name != nullptr ? static_cast<uint16_t>(number(port, 1, 65535)) : kDefaultPort;
  // torchrun keeps a store of its own at that port; ours is beside it.
  const Variable agent = first_of({"TORCHELASTIC_USE_AGENT_STORE"});
  if (agent.value == "True" && place.port < 65535) ++place.port;
  return place;
}

}  // namespace narrow::train
