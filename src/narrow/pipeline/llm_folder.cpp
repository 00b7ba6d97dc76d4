// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/llm_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"
#include "narrow/core/file.h"
#include "narrow/core/parallel.h"
#include "narrow/evaluate/bench.h"
#include "narrow/formats/gguf/types.h"
#include "narrow/formats/safetensors/safetensors.h"
#include "narrow/llm/checkpoint.h"
#include "narrow/llm/hf_files.h"
#include "narrow/pipeline/llm_float.h"
#include "narrow/pipeline/weight_totals.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kChunkValues = int64_t{1} << 22;

// Copied beside the text files.
constexpr const char* kBinaryFiles[] = {"tokenizer.model"};

/// A folder under a temporary name, removed unless it is renamed.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const fs::path& output) : path_(output) {
    if (!path_.has_filename()) path_ = path_.parent_path();  // "folder/"
    final_ = path_;
    path_ += ".partial";
    std::error_code error;
    if (fs::exists(final_, error) && (!fs::is_directory(final_) || !fs::is_empty(final_))) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("'{}' is there already", final_.string()),
                  "name a folder that is not there yet, or remove it");
    }
    fs::remove_all(path_, error);
    if (!fs::create_directory(path_, error)) {
      throw Error(ErrorCode::io_error,
                  fmt::format("cannot make the folder '{}': {}", path_.string(), error.message()));
    }
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!released_) fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const fs::path& path() const { return path_; }
  void commit() {
    rename_path(path_, final_);
    released_ = true;
  }

 private:
  fs::path path_;
  fs::path final_;
  bool released_ = false;
};

class LlmFolderWriter {
 public:
  explicit LlmFolderWriter(const LlmFolderJob& job)
      : job_(job),
        threads_(job.threads),
        model_(job.weights ? *job.weights : llm::Checkpoint::open(job.model)) {
    for (const llm::CheckpointTensor& t : model_.tensors()) {
      if (!t.hf_name.empty()) tensors_[t.hf_name] = &t;
    }
  }

  WeightsReport run();

 private:
  DType dtype_of(const llm::CheckpointTensor& t) const;
  std::string main_dtype() const;
  void write_weights(const fs::path& folder);
  void write_tensor(SafetensorsWriter& writer, const llm::CheckpointTensor& t, DType dtype) const;
  void write_files(const fs::path& folder) const;
  void note(const llm::CheckpointTensor& t, DType dtype);
  void note_left_out();

  const LlmFolderJob& job_;
  ThreadLimit threads_;
  llm::Checkpoint model_;
  std::map<std::string, const llm::CheckpointTensor*> tensors_;  // by their names in the folder
  WeightTotals totals_;
};

DType LlmFolderWriter::dtype_of(const llm::CheckpointTensor& t) const {
  const bool vector = t.dims.size() == 1;
  return float_type(vector && job_.format != "f32" ? "" : job_.format, t.type);
}

/// The type of the most weights, as config.json calls it.
std::string LlmFolderWriter::main_dtype() const {
  std::map<DType, int64_t> elements;
  for (const auto& [name, t] : tensors_) elements[dtype_of(*t)] += t->rows() * t->columns();
  const auto most = std::max_element(elements.begin(), elements.end(),
                                     [](auto& a, auto& b) { return a.second < b.second; });
  return to_string(most->first);
}

void LlmFolderWriter::write_tensor(SafetensorsWriter& writer, const llm::CheckpointTensor& t,
                                   DType dtype) const {
  const Dims dims = model_.hf_dims(t);
  const int64_t columns = dims.back();
  const int64_t rows = dims.size() < 2 ? 1 : dims.front();
  const bool same_order = t.difference == t.hf_difference;
  const Tensor stored = model_.raw(t.name);
  const std::span<const std::byte> bytes(stored.raw(), stored.bytes());
  if (same_order && float_type("", t.type) == dtype && codec(t.type).block_values == 1) {
    writer.write(bytes);
    MappedFile::release(bytes);
    return;
  }
  const int64_t chunk = std::max<int64_t>(1, kChunkValues / std::max<int64_t>(columns, 1));
  for (int64_t first = 0; first < rows; first += chunk) {
    const int64_t count = std::min(chunk, rows - first);
    std::vector<float> values(static_cast<size_t>(count * columns));
    model_.read_hf_rows(t, first, count, values);
    writer.write(Tensor::from_floats(values, dtype, {count, columns}));
  }
  MappedFile::release(bytes);
}

void LlmFolderWriter::write_weights(const fs::path& folder) {
  std::vector<SafetensorsWriter::Item> items;
  int64_t total = 0;
  for (const auto& [name, t] : tensors_) {
    items.push_back({name, dtype_of(*t), model_.hf_dims(*t)});
    total += t->rows() * t->columns();
  }
  SafetensorsWriter writer(folder / "model.safetensors", std::move(items), {{"format", "pt"}});
  int64_t done = 0;
  for (const SafetensorsWriter::Item& item : writer.items()) {
    const llm::CheckpointTensor& t = *tensors_.at(item.name);
    write_tensor(writer, t, item.dtype);
    note(t, item.dtype);
    done += t.rows() * t.columns();
    job_.progress.report("convert", done, total);
  }
  writer.commit();
}

void LlmFolderWriter::write_files(const fs::path& folder) const {
  for (const auto& [name, text] : llm::hf_files(model_, main_dtype())) {
    fs::create_directories((folder / name).parent_path());
    write_text(folder / name, text);
  }
  if (model_.folder().empty()) return;
  for (const char* name : kBinaryFiles) {
    const fs::path source = model_.folder() / name;
    if (fs::is_regular_file(source)) fs::copy_file(source, folder / name);
  }
}

void LlmFolderWriter::note(const llm::CheckpointTensor& t, DType dtype) {
  WeightReport r;
  r.name = t.name;
  r.dims = t.dims;
  r.source_type = gguf_type(t.type).name;
  r.type = float_type_name(dtype);
  r.bytes = packed_bytes(dtype, num_elements(t.dims));
  totals_.add(std::move(r), bits(dtype), {});
}

/// Tensors of the source that the model's function does not need: heads for tasks, tied copies.
void LlmFolderWriter::note_left_out() {
  if (model_.folder().empty() || model_.is_reshaped()) return;
  const fs::path path = fs::is_directory(job_.model) ? model_.folder() : job_.model;
  std::string names;
  for (const std::string& name : SafetensorsCheckpoint::open(path).names()) {
    if (tensors_.count(name) == 0) names += (names.empty() ? "" : ", ") + name;
  }
  if (!names.empty())
    totals_.report.notes.push_back("left out, as the model does without: " + names);
}

WeightsReport LlmFolderWriter::run() {
  const auto start = Clock::now();
  TemporaryFolder folder(job_.output);
  write_files(folder.path());
  write_weights(folder.path());
  note_left_out();
  uint64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder.path())) {
    if (entry.is_regular_file()) bytes += entry.file_size();
  }
  folder.commit();
  WeightsReport report = totals_.finish();
  report.model = job_.model.string();
  report.output = job_.output.string();
  report.architecture = model_.config().architecture;
  report.format = job_.format.empty() ? "as it is" : job_.format;
  for (const auto& [name, t] : tensors_) report.source_bytes += t->bytes();
  report.output_bytes = bytes;
  report.stages = {{"convert", seconds_since(start)}};
  report.peak_rss_bytes = peak_rss_bytes();
  return report;
}

}  // namespace

WeightsReport run_llm_folder(const LlmFolderJob& job) {
  if (!job.format.empty() && !is_float_format(job.format)) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{} is no format of a folder", job.format),
                "a folder holds f32, f16 or bf16; quantized weights go into a .gguf or .onnx file");
  }
  try {
    return LlmFolderWriter(job).run();
  } catch (Error& e) {
    if (e.code() != ErrorCode::cancelled) e.add_context(job.model.string());
    throw;
  }
}

}  // namespace narrow
