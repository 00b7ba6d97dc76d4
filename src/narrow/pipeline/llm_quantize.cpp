// SPDX-License-Identifier: Apache-2.0
#include "narrow/pipeline/llm_quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>

#include "narrow/core/clock.h"
#include "narrow/core/error.h"
#include "narrow/core/hash.h"
#include "narrow/core/parallel.h"
#include "narrow/evaluate/bench.h"
#include "narrow/formats/gguf/importance.h"
#include "narrow/pipeline/weight_journal.h"
#include "narrow/pipeline/weight_source.h"
#include "narrow/pipeline/weight_totals.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kTaskValues = int64_t{1} << 15;      // enough work for a thread, few buffers
constexpr uint64_t kChunkBytes = uint64_t{16} << 20;   // of output between two writes
constexpr uint64_t kWindowBytes = uint64_t{16} << 20;  // of source that is read at a time
constexpr size_t kHashBytes = size_t{1} << 20;         // hashed by one thread

[[noreturn]] void refuse(std::string message, std::string hint = {}) {
  throw Error(ErrorCode::invalid_argument, std::move(message), std::move(hint));
}

bool is_float(BlockType type) {
  return codec(type).block_values == 1;
}

/// The type of the most weights.
const char* main_type(const std::vector<WeightInfo>& tensors) {
  std::map<BlockType, int64_t> elements;
  for (const WeightInfo& t : tensors) elements[*t.type->codec] += t.elements();
  const auto most = std::max_element(elements.begin(), elements.end(),
                                     [](auto& a, auto& b) { return a.second < b.second; });
  return to_string(most == elements.end() ? BlockType::f32 : most->first);
}

/// What becomes of one tensor.
struct Plan {
  bool copy = false;  // the bytes as they are
  TypeChoice choice;
  std::vector<float> importance;  // per expert and column; empty: none
};

class LlmQuantizer {
 public:
  explicit LlmQuantizer(const LlmQuantizeJob& job);
  WeightsReport run();

 private:
  void plan_types();
  void find_importance();
  GgufMetadata output_metadata() const;
  std::string job_hash() const;
  std::vector<JournalEntry> take_up();
  JournalEntry finished_entry(size_t i) const;
  JournalEntry write_tensor(GgufWriter& writer, size_t i);
  std::string write_rows(GgufWriter& writer, size_t i, JournalEntry& entry);
  int64_t chunk_rows(const WeightInfo& t, size_t row) const;
  void encode_rows_of(size_t i, int64_t first, int64_t count, std::byte* out, double* squares,
                      double* errors) const;
  std::string source_hash(size_t i) const;
  void fill_report(const std::vector<JournalEntry>& entries);
  void fill_totals(const std::vector<JournalEntry>& entries);
  void evaluate();
  void clean_up() const;

  const LlmQuantizeJob& job_;
  ThreadLimit threads_;
  std::optional<LlmEvaluation> evaluation_;
  std::unique_ptr<WeightSource> source_;
  const FileFormat* format_ = nullptr;
  ModelTraits traits_;
  ImportanceFile importance_;
  std::string importance_hash_;
  std::vector<Plan> plans_;
  GgufLayout layout_;
  WeightsReport report_;
};

LlmQuantizer::LlmQuantizer(const LlmQuantizeJob& job)
    : job_(job),
      threads_(job.threads),
      source_(job.weights ? open_weights(*job.weights) : open_weights(job.model)) {
  if (!job.format.empty()) {
    format_ = &file_format(job.format);
  } else if (!source_->is_gguf()) {
    format_ = &file_format(main_type(source_->tensors()));
  }
  if ((job.method == WeightMethod::importance) != !job.statistics.empty()) {
    refuse(job.statistics.empty()
               ? "method importance needs statistics"
               : fmt::format("method {} uses no statistics", to_string(job.method)),
           job.statistics.empty() ? "add --statistics FILE (an importance matrix)"
                                  : "leave --statistics out, or choose --method importance");
  }
  if (job.evaluation) {
    if (job.max_memory > 0) {
      refuse("the evaluation runs both models whole and knows no limit of memory",
             "leave --max-memory or the text out; narrow perplexity OUT --reference MODEL measures "
             "afterwards");
    }
    evaluation_.emplace(job.model, *job.evaluation, job.threads);
  }
  traits_ = model_traits(source_->metadata());
  if (!job.statistics.empty()) {
    const auto file = MappedFile::open(job.statistics);
    Hash64 hash;
    hash.add(file->bytes().data(), file->bytes().size());
    importance_hash_ = hash.hex();
    importance_ = parse_importance(file, file->bytes(), job.statistics.string());
    traits_.importance = true;
  }
  plan_types();
  find_importance();
  std::vector<GgufItem> items;
  for (size_t i = 0; i < plans_.size(); ++i) {
    const WeightInfo& t = source_->tensors()[i];
    items.push_back({t.name, plans_[i].copy ? t.type : &gguf_type(*plans_[i].choice.type), t.dims});
  }
  layout_ = gguf_layout(output_metadata(), std::move(items));
}

void LlmQuantizer::plan_types() {
  const std::vector<WeightInfo>& tensors = source_->tensors();
  plans_.resize(tensors.size());
  std::vector<TypeChoice> choices(tensors.size());
  if (format_ != nullptr) {
    std::vector<MixtureTensor> named;
    for (const WeightInfo& t : tensors) named.push_back({t.name, t.dims});
    choices = choose_types(*format_, traits_, named, job_.rules);
  } else if (!job_.rules.empty()) {
    refuse("rules for single tensors need a format", "add --format");
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    const WeightInfo& t = tensors[i];
    Plan& p = plans_[i];
    p.choice = std::move(choices[i]);
    const bool known = t.type->codec.has_value();
    // Integers, and types that can be copied only, pass through.
    if (!known || !p.choice.type) p.choice.type = known ? t.type->codec : std::nullopt;
    const bool same = !known || p.choice.type == t.type->codec;
    p.copy = same && (!source_->raw(i).empty() || t.bytes == 0);
    if (same && !known && source_->raw(i).empty() && t.bytes > 0) {
      throw Error(ErrorCode::unsupported,
                  fmt::format("tensor '{}' has type {}", t.name, t.type->name));
    }
    const bool wants_quantized = format_ != nullptr && !is_float(format_->type);
    if (!known && wants_quantized && t.type->block_values > 1) {
      report_.notes.push_back(
          fmt::format("'{}' is {}, which narrow copies but cannot decode", t.name, t.type->name));
    }
    if (!same && !is_float(*t.type->codec) && !is_float(*p.choice.type) && !job_.requantize) {
      refuse(fmt::format("'{}' is quantized already ({})", t.name, t.type->name),
             "start from the float model, or add --requantize and accept both errors");
    }
  }
}

void LlmQuantizer::find_importance() {
  if (job_.method != WeightMethod::importance) return;
  std::vector<std::string> without;
  for (size_t i = 0; i < plans_.size(); ++i) {
    Plan& p = plans_[i];
    if (p.copy || is_float(*p.choice.type)) continue;
    const WeightInfo& t = source_->tensors()[i];
    const auto found = importance_.entries.find(t.name);
    if (found == importance_.entries.end()) {
      without.push_back(t.name);
      continue;
    }
    const ImportanceEntry& e = found->second;
    const auto experts = t.dims.size() > 2 ? static_cast<size_t>(t.dims.front()) : size_t{1};
    const auto columns = static_cast<size_t>(t.columns());
    if (e.sums.size() != experts * columns || (e.experts() != experts && e.experts() != 1)) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{}: '{}' has {} numbers, the tensor has {} columns",
                              job_.statistics.string(), t.name, e.sums.size(), experts * columns),
                  "the statistics are of another model");
    }
    for (size_t expert = 0; expert < e.experts(); ++expert) {
      const std::vector<float> means = e.mean_squares(expert);
      p.importance.insert(p.importance.end(), means.begin(), means.end());
    }
  }
  if (!without.empty()) {
    report_.notes.push_back(
        fmt::format("no statistics for {}: all columns counted alike", fmt::join(without, ", ")));
  }
}

GgufMetadata LlmQuantizer::output_metadata() const {
  GgufMetadata metadata = source_->metadata();
  const auto set = [&](const std::string& key, GgufValue value) {
    const auto found = std::find_if(metadata.begin(), metadata.end(),
                                    [&](const auto& entry) { return entry.first == key; });
    if (found == metadata.end()) {
      metadata.emplace_back(key, std::move(value));
    } else {
      found->second = std::move(value);
    }
  };
  if (format_ == nullptr) return metadata;
  constexpr uint32_t kBlockVersion = 2;  // of the layouts of quantized blocks
  set("general.quantization_version", GgufValue::u32(kBlockVersion));
  set("general.file_type", GgufValue::u32(format_->file_type));
  if (job_.method == WeightMethod::importance) {
    set("quantize.imatrix.file", GgufValue::string(job_.statistics.filename().string()));
    if (!importance_.datasets.empty()) {
      set("quantize.imatrix.dataset", GgufValue::string(importance_.datasets.front()));
    }
    set("quantize.imatrix.entries_count",
        GgufValue::u32(static_cast<uint32_t>(importance_.entries.size())));
    set("quantize.imatrix.chunks_count", GgufValue::u32(importance_.chunk_count));
  }
  return metadata;
}

/// Whatever the bytes of the output depend on, but for the weights, which are hashed one by one.
std::string LlmQuantizer::job_hash() const {
  constexpr int64_t kEncoders = 2;  // changes when an encoder gives other bytes
  Hash64 hash;
  hash.add_number(kEncoders);
  hash.add_text(layout_.header);
  hash.add_text(to_string(job_.method));
  hash.add_text(importance_hash_);
  hash.add_number(static_cast<int64_t>(source_->file_bytes()));
  return hash.hex();
}

std::string combined(std::span<const uint64_t> hashes) {
  Hash64 hash;
  for (const uint64_t h : hashes) hash.add_number(static_cast<int64_t>(h));
  return hash.hex();
}

uint64_t hash_of(std::span<const std::byte> bytes) {
  Hash64 hash;
  hash.add(bytes.data(), bytes.size());
  return hash.value();
}

/// Hashes of pieces whose borders depend on the size alone, in parallel.
std::string LlmQuantizer::source_hash(size_t i) const {
  const std::span<const std::byte> bytes = source_->stored(i);
  std::vector<uint64_t> hashes((bytes.size() + kHashBytes - 1) / kHashBytes);
  for (size_t begin = 0; begin < bytes.size(); begin += kWindowBytes) {
    const auto window = bytes.subspan(begin, std::min<size_t>(kWindowBytes, bytes.size() - begin));
    const auto pieces = static_cast<int64_t>((window.size() + kHashBytes - 1) / kHashBytes);
    parallel_blocks(pieces, [&](int64_t p) {
      const size_t at = static_cast<size_t>(p) * kHashBytes;
      hashes[begin / kHashBytes + static_cast<size_t>(p)] =
          hash_of(window.subspan(at, std::min(kHashBytes, window.size() - at)));
    });
    if (job_.max_memory > 0) MappedFile::release(window);
  }
  return combined(hashes);
}

/// The tensors that a run of this job has finished, as far as source and file still agree with its
/// journal.
std::vector<JournalEntry> LlmQuantizer::take_up() {
  const fs::path partial = partial_path(job_.output);
  std::error_code ignored;
  if (!job_.resume || !fs::exists(partial, ignored)) {
    if (job_.resume) report_.notes.emplace_back("there was nothing to resume");
    return {};
  }
  auto entries = read_journal(journal_path(job_.output), job_hash());
  if (!entries) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("'{}' is of another job: other options, other statistics or another "
                            "model",
                            partial.string()),
                "leave --resume out to start anew");
  }
  const auto file = MappedFile::open(partial);
  const auto bytes = file->bytes();
  const std::string& header = layout_.header;
  size_t good = 0;
  const bool same_header = bytes.size() >= header.size() &&
                           std::equal(header.begin(), header.end(), file->text().begin());
  for (; same_header && good < std::min(entries->size(), plans_.size()); ++good) {
    const JournalEntry& e = (*entries)[good];
    if (e.source_hash != source_hash(good)) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("tensor '{}' is not what it was when '{}' was begun",
                              source_->tensors()[good].name, partial.string()),
                  "leave --resume out to start anew");
    }
    MappedFile::release(source_->stored(good));
    const uint64_t end = layout_.positions[good] + layout_.sizes[good];
    if (bytes.size() < end) break;
    const auto tensor = bytes.subspan(layout_.positions[good], layout_.sizes[good]);
    const auto rows = static_cast<size_t>(std::max<int64_t>(source_->tensors()[good].rows(), 1));
    std::vector<uint64_t> hashes(rows);
    const size_t row = tensor.size() / rows;
    for (size_t r = 0; r < rows; ++r) hashes[r] = hash_of(tensor.subspan(r * row, row));
    if (e.output_hash != combined(hashes)) break;
    MappedFile::release(tensor);
  }
  if (good < entries->size()) {
    report_.notes.push_back(fmt::format("{} tensors of '{}' were damaged and are written again",
                                        entries->size() - good, partial.string()));
  }
  entries->resize(good);
  report_.resumed = static_cast<int64_t>(good);
  return std::move(*entries);
}

/// Rows between two writes.
int64_t LlmQuantizer::chunk_rows(const WeightInfo& t, size_t row) const {
  uint64_t budget = kChunkBytes;
  if (job_.max_memory > 0) {
    // Beside the chunk of output each thread has two rows of floats or more, and the source's pages
    // are there while they are read.
    const uint64_t columns = static_cast<uint64_t>(t.columns());
    const uint64_t values = std::max<uint64_t>(columns, kTaskValues);
    const uint64_t fixed = static_cast<uint64_t>(current_threads()) * values * 2 * sizeof(float) +
                           layout_.header.size();
    const uint64_t each = row + columns * sizeof(float);
    if (fixed + each > job_.max_memory) {
      throw Error(
          ErrorCode::resource_exhausted,
          fmt::format("a row of '{}' needs {} bytes, more than --max-memory", t.name, fixed + each),
          "allow more memory, or fewer --threads");
    }
    budget = std::min<uint64_t>(budget, (job_.max_memory - fixed) / each * row);
  }
  return std::max<int64_t>(1, static_cast<int64_t>(budget / std::max<size_t>(row, 1)));
}

void LlmQuantizer::encode_rows_of(size_t i, int64_t first, int64_t count, std::byte* out,
                                  double* squares, double* errors) const {
  const WeightInfo& t = source_->tensors()[i];
  const Plan& p = plans_[i];
  const BlockType type = *p.choice.type;
  const int64_t columns = t.columns();
  const size_t row = row_bytes(type, columns);
  const int64_t rows_per_expert = t.dims.size() > 2 ? t.rows() / t.dims.front() : t.rows();
  const auto n = static_cast<size_t>(columns);
  EncodeOptions options;
  options.method = job_.method == WeightMethod::rtn ? EncodeMethod::rtn : EncodeMethod::mse;
  options.emphasis = best_emphasis(type, !p.importance.empty());
  std::vector<float> x(n * static_cast<size_t>(count));
  std::vector<float> y(n);
  source_->read_rows(i, first, count, x.data());
  for (int64_t r = 0; r < count; ++r) {
    const std::span<const float> values(x.data() + static_cast<size_t>(r) * n, n);
    const std::span<std::byte> bytes(out + static_cast<size_t>(r) * row, row);
    if (!p.importance.empty()) {
      const auto expert = static_cast<size_t>((first + r) / rows_per_expert);
      options.importance = {p.importance.data() + expert * n, n};
    }
    try {
      encode(type, values, bytes, options);
    } catch (Error& e) {
      e.add_context(fmt::format("tensor '{}', row {}", t.name, first + r));
      throw;
    }
    decode(type, bytes, y);
    double sum = 0;
    double error = 0;
    for (size_t c = 0; c < n; ++c) {
      const double d = static_cast<double>(values[c]) - y[c];
      sum += static_cast<double>(values[c]) * values[c];
      error += d * d;
    }
    squares[r] = sum;
    errors[r] = error;
  }
}

/// Returns the hash of what was written.
std::string LlmQuantizer::write_rows(GgufWriter& writer, size_t i, JournalEntry& entry) {
  const WeightInfo& t = source_->tensors()[i];
  const Plan& p = plans_[i];
  const int64_t rows = std::max<int64_t>(t.rows(), 1);
  const auto row = static_cast<size_t>(layout_.sizes[i] / static_cast<uint64_t>(rows));
  const int64_t chunk = chunk_rows(t, row);
  const std::span<const std::byte> stored = source_->stored(i);
  std::vector<uint64_t> hashes(static_cast<size_t>(rows));
  std::vector<std::byte> buffer(p.copy ? 0 : row * static_cast<size_t>(std::min(chunk, rows)));
  std::vector<double> sums(p.copy ? 0 : 2 * static_cast<size_t>(std::min(chunk, rows)));
  const int64_t task = std::max<int64_t>(1, kTaskValues / std::max<int64_t>(t.columns(), 1));
  for (int64_t first = 0; first < rows; first += chunk) {
    job_.progress.check_cancelled();
    const int64_t count = std::min(chunk, rows - first);
    const std::byte* bytes =
        p.copy ? stored.data() + row * static_cast<size_t>(first) : buffer.data();
    parallel_for(count, task, [&](int64_t begin, int64_t end) {
      if (!p.copy) {
        encode_rows_of(i, first + begin, end - begin,
                       buffer.data() + row * static_cast<size_t>(begin), &sums[begin],
                       &sums[static_cast<size_t>(count + begin)]);
      }
      for (int64_t r = begin; r < end; ++r) {
        hashes[static_cast<size_t>(first + r)] =
            hash_of({bytes + row * static_cast<size_t>(r), row});
      }
    });
    for (int64_t r = 0; r < (p.copy ? 0 : count); ++r) {
      entry.squares += sums[static_cast<size_t>(r)];
      entry.errors += sums[static_cast<size_t>(count + r)];
    }
    writer.write({bytes, row * static_cast<size_t>(count)});
    if (job_.max_memory > 0 && !stored.empty()) {
      // Rows of the file stand in about the same place.
      const size_t from = stored.size() / static_cast<size_t>(rows) * static_cast<size_t>(first);
      const size_t size = stored.size() / static_cast<size_t>(rows) * static_cast<size_t>(count);
      MappedFile::release(stored.subspan(from, size));
    }
  }
  return combined(hashes);
}

JournalEntry LlmQuantizer::write_tensor(GgufWriter& writer, size_t i) {
  JournalEntry entry;
  entry.source_hash = source_hash(i);
  entry.output_hash = write_rows(writer, i, entry);
  MappedFile::release(source_->stored(i));
  return entry;
}

void LlmQuantizer::fill_totals(const std::vector<JournalEntry>& entries) {
  WeightTotals totals;
  totals.report = std::move(report_);
  bool quantized = false;
  for (size_t i = 0; i < plans_.size(); ++i) {
    const WeightInfo& t = source_->tensors()[i];
    const Plan& p = plans_[i];
    const JournalEntry& e = entries[i];
    const GgufTensorType& type = *layout_.items[i].type;
    WeightReport w;
    w.name = t.name;
    w.dims = t.dims;
    w.source_type = t.type->name;
    w.type = type.name;
    w.reason = p.choice.reason;
    if (p.choice.wanted) w.wanted = gguf_type(*p.choice.wanted).name;
    w.bytes = layout_.sizes[i];
    w.importance = !p.importance.empty();
    const double each =
        type.codec ? nominal_bits(*type.codec) : 8.0 * type.block_bytes / type.block_values;
    const bool rounded = type.codec && !is_float(*type.codec) && !p.copy;
    quantized = quantized || rounded;
    totals.add(std::move(w), each, {e.squares, e.errors, rounded});
  }
  report_ = totals.finish();
  if (quantized) report_.method = to_string(job_.method);
}

void LlmQuantizer::fill_report(const std::vector<JournalEntry>& entries) {
  report_.model = job_.model.string();
  report_.output = job_.output.string();
  report_.architecture = traits_.architecture;
  report_.format = format_ != nullptr ? format_->name : "as it is";
  report_.statistics = job_.statistics.string();
  report_.source_bytes = source_->file_bytes();
  report_.output_bytes = fs::file_size(partial_path(job_.output));
  fill_totals(entries);
}

/// Of the whole file, before it gets its name.
void LlmQuantizer::evaluate() {
  if (!evaluation_) return;
  report_.evaluation = evaluation_->measure(partial_path(job_.output), job_.progress);
  report_.stages.push_back({"evaluate", report_.evaluation->seconds});
  report_.refusal = evaluation_->gate_failure(*report_.evaluation);
  if (report_.refusal.empty()) return;
  report_.output.clear();
  report_.peak_rss_bytes = peak_rss_bytes();
  throw WeightsBelowTarget(report_.refusal,
                           "choose a format of more bits, add --statistics, or give the worst "
                           "tensors of the report more with --tensor-type",
                           report_);
}

void LlmQuantizer::clean_up() const {
  std::error_code ignored;
  fs::remove(partial_path(job_.output), ignored);
  fs::remove(journal_path(job_.output), ignored);
}

WeightsReport LlmQuantizer::run() {
  const auto start = Clock::now();
  std::vector<JournalEntry> entries = take_up();
  try {
    GgufWriter writer(job_.output, layout_, partial_path(job_.output), entries.size());
    JournalWriter journal(journal_path(job_.output), job_hash(), entries);
    int64_t done = 0;
    int64_t total = 0;
    for (const WeightInfo& t : source_->tensors()) total += t.elements();
    for (size_t i = 0; i < plans_.size(); ++i) {
      if (i >= entries.size()) {
        entries.push_back(write_tensor(writer, i));
        writer.flush();
        journal.append(entries.back());
      }
      done += source_->tensors()[i].elements();
      job_.progress.report(format_ != nullptr ? "quantize" : "convert", done, total);
    }
    report_.stages = {{format_ != nullptr ? "quantize" : "convert", seconds_since(start)}};
    fill_report(entries);
    evaluate();
    writer.commit();
  } catch (const Error& e) {
    // What is finished stays for --resume where the cause can go away.
    const bool keep = e.code() == ErrorCode::cancelled || e.code() == ErrorCode::io_error ||
                      e.code() == ErrorCode::resource_exhausted;
    if (!keep || entries.empty()) clean_up();
    if (!keep || entries.empty() || !e.hint().empty()) throw;
    throw Error(e.code(), e.message(), "the same command with --resume goes on from here");
  }
  clean_up();
  report_.peak_rss_bytes = peak_rss_bytes();
  return std::move(report_);
}

}  // namespace

WeightsBelowTarget::WeightsBelowTarget(std::string message, std::string hint, WeightsReport report)
    : Error(ErrorCode::quality_below_target, std::move(message), std::move(hint)),
      report_(std::make_shared<const WeightsReport>(std::move(report))) {}

WeightsReport run_llm_quantize(const LlmQuantizeJob& job) {
  try {
    return LlmQuantizer(job).run();
  } catch (Error& e) {
    if (e.code() != ErrorCode::cancelled) e.add_context(job.model.string());
    throw;
  }
}

}  // namespace narrow
