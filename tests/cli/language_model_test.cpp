// SPDX-License-Identifier: Apache-2.0
// narrow perplexity and narrow generate on the project's own language model.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "cli/cli_testing.h"
#include "narrow/core/file.h"

namespace narrow::testing {
namespace {

const std::string kModel = std::string(NARROW_SOURCE_DIR) + "/assets/novels-7m";

/// A text of about 2000 tokens.
std::string text_in(const TemporaryFolder& folder) {
  std::string text;
  for (int i = 0; i < 60; ++i) {
    text += "It was a dark evening, and the " + std::to_string(i) +
            " guests had gone home. She sat by the fire and thought of what he had said.\n";
  }
  const auto path = folder.path() / "text.txt";
  write_text(path, text);
  return "text:" + path.string();
}

TEST(CliPerplexity, MeasuresAndCompares) {
  const TemporaryFolder folder;
  const std::string text = text_in(folder);
  const Json own =
      narrow_json({"perplexity", kModel, "--data", text, "--context", "128", "--chunks", "3"});
  EXPECT_GT(own["perplexity"].get<double>(), 1);
  EXPECT_LT(own["perplexity"].get<double>(), 200);
  EXPECT_GT(own["stderr"].get<double>(), 0);
  EXPECT_EQ(own["tokens"], 3 * 63);
  EXPECT_EQ(own["chunks"], 3);
  EXPECT_EQ(own["bos"], 0);
  EXPECT_FALSE(own.contains("kl_mean"));
  const Json same = narrow_json({"perplexity", kModel, "--data", text, "--context", "128",
                                 "--chunks", "3", "--reference", kModel});
  EXPECT_EQ(same["kl_mean"], 0);
  EXPECT_EQ(same["same_top_token"], 1);
  EXPECT_EQ(same["perplexity"], own["perplexity"]);
  const Json sliding = narrow_json({"perplexity", kModel, "--data", text, "--context", "128",
                                    "--stride", "64", "--chunks", "3"});
  EXPECT_EQ(sliding["windows"], "sliding");
  const Outcome plain =
      narrow_program({"perplexity", kModel, "--data", text, "--context", "64", "--chunks", "2"});
  EXPECT_EQ(plain.code, 0);
  EXPECT_NE(plain.out.find("perplexity"), std::string::npos);
}

TEST(CliPerplexity, ReadsThroughACacheAndSaysWhatItHolds) {
  const TemporaryFolder folder;
  const std::string text = text_in(folder);
  const auto measured = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"perplexity", kModel, "--data",   text,
                                       "--context",  "128",  "--chunks", "3"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return narrow_json(arguments);
  };
  const Json plain = measured({});
  EXPECT_EQ(plain["memory"]["cache_bytes"], 0);
  EXPECT_FALSE(plain.contains("kv_cache"));
  const Json half = measured({"--kv-cache", "f16"});
  const Json codes = measured({"--kv-cache", "int8"});
  EXPECT_EQ(codes["kv_cache"], "int8");
  EXPECT_NE(codes["perplexity"], half["perplexity"]);
  EXPECT_NEAR(codes["perplexity"].get<double>() / half["perplexity"].get<double>(), 1, 2e-3);
  // A head of 32 numbers: 32 codes and a scale instead of 64 bytes.
  EXPECT_NEAR(
      codes["memory"]["cache_bytes"].get<double>() / half["memory"]["cache_bytes"].get<double>(),
      0.5625, 1e-6);
  EXPECT_GT(half["memory"]["weights_bytes"].get<double>(), 1e6);
  EXPECT_GT(half["memory"]["work_bytes"].get<double>(), 1e5);
  EXPECT_EQ(measured({"--no-repack"})["perplexity"], plain["perplexity"]);
}

TEST(CliPerplexity, SaysWhatIsWrong) {
  const TemporaryFolder folder;
  const std::string text = text_in(folder);
  const auto fails = [](const std::vector<std::string>& arguments, int code,
                        const std::string& message) {
    const Outcome outcome = narrow_program(arguments);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_NE(outcome.err.find(message), std::string::npos) << outcome.err;
  };
  fails({"perplexity", kModel, "--data", "mnist:x"}, 2, "text:FILE");
  fails({"perplexity", kModel, "--data", "text:/absent"}, 3, "/absent");
  fails({"perplexity", folder.path().string(), "--data", text}, 3, "no config.json");
  fails({"perplexity", kModel, "--data", text, "--context", "100000"}, 2, "a chunk takes 100000");
  fails({"perplexity", kModel, "--data", text, "--context", "64", "--stride", "65"}, 2, "stride");
}

TEST(CliQuantizeLlm, SaysWhatItCost) {
  const TemporaryFolder folder;
  const std::string text = text_in(folder);
  const std::string output = folder.file("q.gguf");
  const std::vector<std::string> command{"quantize",  kModel,     "-o",       output,   "--format",
                                         "q4_0",      "--method", "rtn",      "--data", text,
                                         "--context", "64",       "--chunks", "2"};
  const Json report = narrow_json(command);
  const Json afterwards = narrow_json({"perplexity", output, "--data", text, "--context", "64",
                                       "--chunks", "2", "--reference", kModel});
  for (const char* key : {"data", "perplexity", "stderr", "reference_perplexity", "kl_mean",
                          "kl_mean_stderr", "same_top_token", "same_top_token_stderr", "tokens"}) {
    EXPECT_EQ(report["evaluation"][key], afterwards[key]) << key;
  }
  EXPECT_TRUE(report["refusal"].is_null());
  std::filesystem::remove(output);

  std::vector<std::string> gated = command;
  gated.insert(gated.end(), {"--max-kl", "1e-6"});
  const Outcome refused = narrow_program(gated);
  EXPECT_EQ(refused.code, 1);
  expect_contains(refused.err, "KL divergence");
  expect_contains(refused.out, "refused: ");
  expect_contains(refused.out, "same top");
  EXPECT_FALSE(std::filesystem::exists(output));
  gated.back() = "1";
  gated.insert(gated.end(), {"--max-drop", "0"});
  expect_contains(narrow_program(gated).err, "most likely token");
}

TEST(CliQuantizeLlm, SaysWhatIsWrongWithTheText) {
  const TemporaryFolder folder;
  const std::string text = text_in(folder);
  const auto fails = [&](std::vector<std::string> flags, const std::string& message) {
    flags.insert(flags.begin(), {"quantize", kModel, "-o", folder.file("q.gguf")});
    const Outcome outcome = narrow_program(flags);
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    expect_contains(outcome.err, message);
  };
  fails({"--max-kl", "1"}, "--data text:FILE");
  fails({"--max-drop", "1"}, "--data text:FILE");
  fails({"--data", "mnist:x"}, "text:FILE");
  fails({"--data", text, "--eval-data", text}, "one text");
  fails({"--data", text, "--max-memory", "1G"}, "no limit of memory");
  const Outcome onnx = narrow_program({"quantize", "m.onnx", "-o", "q.onnx", "--max-kl", "1"});
  EXPECT_EQ(onnx.code, 2);
  expect_contains(onnx.err, "--max-kl");
}

TEST(CliGenerate, ContinuesAText) {
  const std::vector<std::string> command{"generate", kModel, "--prompt",      "It was a dark",
                                         "--tokens", "12",   "--temperature", "0"};
  const Json j = narrow_json(command);
  EXPECT_EQ(j["tokens"], 12);
  EXPECT_EQ(j["finish"], "length");
  EXPECT_EQ(j["ids"].size(), 12u);
  EXPECT_GT(j["tokens_per_second"].get<double>(), 0);
  const Outcome plain = narrow_program(command);
  EXPECT_EQ(plain.code, 0);
  EXPECT_EQ(plain.out, j["text"].get<std::string>() + "\n");
  EXPECT_NE(plain.err.find("tokens/s"), std::string::npos) << plain.err;
  EXPECT_NE(plain.err.find("memory: weights "), std::string::npos) << plain.err;
  EXPECT_EQ(j["memory"]["cache_tokens"], j["prompt_tokens"].get<int>() + 12);

  std::vector<std::string> stopped = command;
  stopped.insert(stopped.end(), {"--stop", j["text"].get<std::string>().substr(5, 4)});
  const Json s = narrow_json(stopped);
  EXPECT_EQ(s["finish"], "stop");
  EXPECT_EQ(s["text"], j["text"].get<std::string>().substr(0, 5));
}

TEST(CliGenerate, DrawsBySeedAndFromAFile) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "prompt.txt";
  write_text(path, "She said");
  const auto text = [&](const std::string& seed) {
    return narrow_json({"generate", kModel, "--prompt-file", path.string(), "--tokens", "16",
                        "--seed", seed, "--threads", seed == "1" ? "1" : "2"})["text"];
  };
  EXPECT_EQ(text("1"), text("1"));
  EXPECT_NE(text("1"), text("2"));
  EXPECT_EQ(narrow_json({"generate", kModel, "--tokens", "2"})["prompt_tokens"], 1);
}

TEST(CliGenerate, SaysWhatIsWrong) {
  Outcome o = narrow_program({"generate", kModel, "--prompt", "x", "--temperature", "-1"});
  EXPECT_EQ(o.code, 2);
  o = narrow_program({"generate", kModel, "--prompt", "x y z w", "--context", "1"});
  EXPECT_EQ(o.code, 2) << o.err;
  EXPECT_NE(o.err.find("do not fit a context of 1"), std::string::npos) << o.err;
  o = narrow_program({"generate", "/absent", "--prompt", "x"});
  EXPECT_EQ(o.code, 3);
  o = narrow_program({"generate", kModel, "--prompt", "x", "--kv-cache", "int4"});
  EXPECT_EQ(o.code, 2);
  EXPECT_NE(o.err.find("int8"), std::string::npos) << o.err;
}

TEST(CliBench, MeasuresALanguageModel) {
  const Json j =
      narrow_json({"bench", kModel, "--prompt-tokens", "20", "--new-tokens", "4", "--rounds", "1"});
  for (const char* key : {"prefill_tokens_per_second", "decode_tokens_per_second",
                          "achieved_gb_per_s", "memory_read_gb_per_s", "peak_rss_bytes"}) {
    EXPECT_GT(j[key].get<double>(), 0) << key;
  }
  EXPECT_EQ(j["prompt_tokens"], 20);
  EXPECT_EQ(j["ids"].size(), 4u);
  EXPECT_EQ(j["kv_cache"], "f16");
  EXPECT_EQ(j["memory"]["cache_tokens"], 24);
  // The model takes some 60 MB; what the memory's rate is measured on, 256 MiB, does not count.
  EXPECT_LT(j["peak_rss_bytes"].get<double>(), 200e6);
  const Outcome plain =
      narrow_program({"bench", kModel, "--prompt-tokens", "8", "--new-tokens", "2"});
  EXPECT_EQ(plain.code, 0);
  EXPECT_NE(plain.out.find("GB/s"), std::string::npos) << plain.out;
  Outcome wrong = narrow_program({"bench", kModel, "--batch", "2"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_NE(wrong.err.find("--batch is for ONNX models"), std::string::npos) << wrong.err;
  wrong = narrow_program({"bench", kModel, "--compute", "reference"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_NE(wrong.err.find("--compute reference is for ONNX models"), std::string::npos);
  wrong = narrow_program({"bench", kModel, "--prompt-tokens", "600"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_NE(wrong.err.find("exceed the context of 512"), std::string::npos) << wrong.err;
}

TEST(CliCalibrate, StatisticsForQuantize) {
  const TemporaryFolder folder;
  const std::string text = text_in(folder);
  const std::string stats = (folder.path() / "stats.gguf").string();
  const auto calibrate = [&](std::vector<std::string> more) {
    std::vector<std::string> command{"calibrate", kModel, "--data",    text,
                                     "-o",        stats,  "--context", "64"};
    command.insert(command.end(), more.begin(), more.end());
    return narrow_json(command);
  };
  const Json first = calibrate({"--chunks", "2"});
  EXPECT_EQ(first["chunks"], 2);
  EXPECT_EQ(first["matrices"], 56);
  const Json second = calibrate({"--chunks", "3", "--resume"});
  EXPECT_EQ(second["resumed_chunks"], 2);
  EXPECT_EQ(second["chunks"], 3);
  const std::string output = (folder.path() / "q.gguf").string();
  const Json q = narrow_json({"quantize", kModel, "-o", output, "--format", "q4_0", "--method",
                              "importance", "--statistics", stats});
  EXPECT_EQ(q["method"], "importance");
  const Outcome other =
      narrow_program({"calibrate", kModel, "--data", "text:/absent", "-o", stats});
  EXPECT_EQ(other.code, 3);
}

TEST(CliModels, APipeIsNoModelAndIsNotWaitedFor) {
  const TemporaryFolder folder;
  const std::string pipe = folder.file("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const std::vector<std::vector<std::string>> commands{
      {"quantize", pipe, "-o", folder.file("q.onnx"), "--mode", "dynamic"},
      {"bench", pipe},
      {"inspect", pipe}};
  for (const auto& command : commands) {
    const Outcome o = narrow_program(command);
    EXPECT_EQ(o.code, 2) << command.front();
    EXPECT_NE(o.err.find("is not a file"), std::string::npos) << o.err;
  }
}

}  // namespace
}  // namespace narrow::testing
