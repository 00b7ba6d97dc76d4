// SPDX-License-Identifier: Apache-2.0
#include "narrow/llm/importance.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "narrow/core/error.h"
#include "narrow/core/parallel.h"

namespace narrow::llm {
namespace {

constexpr int64_t kColumns = 64;  // of one block of parallel work

/// Which matrices each value of the graph meets.
std::map<std::string, std::vector<std::string>> observed_inputs(const Checkpoint& checkpoint,
                                                                const Graph& graph) {
  std::map<std::string, std::vector<std::string>> observed;
  constexpr std::string_view kWeight = ".weight";
  for (const CheckpointTensor& t : checkpoint.tensors()) {
    if (!t.name.ends_with(kWeight)) continue;
    const auto id = graph.find_node(t.name.substr(0, t.name.size() - kWeight.size()));
    if (!id || !graph.node(*id).is("MatMul") || t.name == "output.weight") continue;
    observed[graph.value(graph.node(*id).inputs[0]).name].push_back(t.name);
  }
  return observed;
}

/// Sums of squares of the columns of x [rows, columns]; in the order of rows, whatever the threads.
std::vector<double> column_squares(const Tensor& x) {
  const int64_t columns = x.dims().back();
  const int64_t rows = x.elements() / columns;
  std::vector<double> sums(static_cast<size_t>(columns), 0.0);
  const float* data = x.data<float>().data();
  parallel_for(columns, kColumns, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = begin; c < end; ++c) {
        const auto v = static_cast<double>(data[r * columns + c]);
        sums[static_cast<size_t>(c)] += v * v;
      }
    }
  });
  return sums;
}

void add_sums(ImportanceEntry& entry, const std::vector<double>& sums, int64_t rows,
              const std::string& name) {
  if (entry.sums.empty()) {
    entry.sums.assign(sums.size(), 0.0F);
    entry.counts.assign(1, 0.0F);
  }
  if (entry.sums.size() != sums.size() || entry.counts.size() != 1) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the statistics have {} columns for {}, the model {}",
                            entry.sums.size(), name, sums.size()),
                "they are of another model");
  }
  for (size_t c = 0; c < sums.size(); ++c) {
    if (!std::isfinite(sums[c])) {
      throw Error(ErrorCode::numeric_failure,
                  fmt::format("what meets {} is not finite in column {}", name, c),
                  "the model is broken");
    }
    // Rounded after each chunk, as the file keeps it: a run that goes on gives the same.
    entry.sums[c] = static_cast<float>(static_cast<double>(entry.sums[c]) + sums[c]);
  }
  entry.counts[0] += static_cast<float>(rows);
}

void check(const ImportanceOptions& options, size_t tokens, const ImportanceFile& statistics) {
  if (options.context < 1 || static_cast<int64_t>(tokens) < options.context) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the text has {} tokens, a chunk takes {}", tokens, options.context),
                "give a longer text or a shorter context");
  }
  if (statistics.chunk_count > 0 && statistics.chunk_size != options.context) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the statistics are over chunks of {} tokens, not {}",
                            statistics.chunk_size, options.context),
                "go on with the same context");
  }
}

}  // namespace

void collect_importance(const LanguageModel& model, std::span<const int32_t> ids,
                        const ImportanceOptions& options, ImportanceFile& statistics,
                        const Progress& progress) {
  check(options, ids.size(), statistics);
  GraphOptions graph_options;
  graph_options.capacity = options.context;
  graph_options.first_logit = kLastLogit;
  graph_options.activations = Activations::real;
  Graph graph = build_graph(model.checkpoint(), graph_options);
  const auto observed = observed_inputs(model.checkpoint(), graph);
  SessionOptions session_options;
  session_options.threads = options.threads;
  for (const auto& [value, weights] : observed) session_options.observed.push_back(value);
  const Session session(std::move(graph), session_options);

  const ThreadLimit limit(options.threads);
  RunOptions run;
  run.observe = [&](const std::string& name, const Tensor& value) {
    const std::vector<double> sums = column_squares(value);
    const auto rows = value.elements() / value.dims().back();
    for (const std::string& weight : observed.at(name)) {
      add_sums(statistics.entries[weight], sums, rows, weight);
    }
  };
  auto chunks = static_cast<int64_t>(ids.size()) / options.context;
  if (options.chunks > 0) chunks = std::min(chunks, options.chunks);
  statistics.chunk_size = static_cast<uint32_t>(options.context);
  const Tensor position(DType::int64, {1});
  for (auto i = static_cast<int64_t>(statistics.chunk_count); i < chunks; ++i) {
    progress.check_cancelled();
    progress.report("calibrate", i, chunks);
    const auto part =
        ids.subspan(static_cast<size_t>(i * options.context), static_cast<size_t>(options.context));
    std::vector<int32_t> chunk(part.begin(), part.end());
    if (options.bos >= 0) chunk.front() = options.bos;
    session.run({ids_tensor(chunk, 1), position}, run);
    ++statistics.chunk_count;
    if (options.save && statistics.chunk_count % options.save_every == 0) options.save(statistics);
  }
  progress.report("calibrate", chunks, chunks);
}

void merge_importance(ImportanceFile& statistics, const ImportanceFile& other) {
  for (const auto& [name, entry] : other.entries) {
    ImportanceEntry& to = statistics.entries[name];
    if (to.sums.empty()) {
      to = entry;
      continue;
    }
    if (to.sums.size() != entry.sums.size() || to.counts.size() != entry.counts.size()) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{} has {} columns in one file, {} in the other", name,
                              to.sums.size(), entry.sums.size()),
                  "merge statistics of one model");
    }
    for (size_t i = 0; i < to.sums.size(); ++i) to.sums[i] += entry.sums[i];
    for (size_t i = 0; i < to.counts.size(); ++i) to.counts[i] += entry.counts[i];
  }
  statistics.datasets.insert(statistics.datasets.end(), other.datasets.begin(),
                             other.datasets.end());
  statistics.chunk_count += other.chunk_count;
  if (statistics.chunk_size == 0) statistics.chunk_size = other.chunk_size;
}

}  // namespace narrow::llm
