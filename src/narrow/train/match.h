// SPDX-License-Identifier: Apache-2.0
// Distillation by features: values inside of the network learn values inside of the teacher
// (Romero et al., FitNets: Hints for Thin Deep Nets, 2015).
//
//   L += weight * sum over pairs of mean((P s - t)^2) / mean(t^2)
//
// s is the student's value, as rounded to its grid, t the teacher's. P is a learned 1x1 projection
// where their channels differ, else nothing. Divided by the teacher's mean square, a pair counts 1
// while the student says nothing (s = 0), whatever the layer's size and scale.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "narrow/graph/graph.h"

namespace narrow::train {

/// Names of values, or of nodes for their first output.
struct FeaturePair {
  std::string student;
  std::string teacher;
};

struct MatchOptions {
  std::vector<FeaturePair> pairs;
  double weight = 1;
  bool active() const { return !pairs.empty(); }
};

/// "NAME" (of both) or "STUDENT=TEACHER". Throws invalid_argument where a name is missing.
FeaturePair parse_feature_pair(std::string_view text);
/// For fingerprints.
std::string to_text(const MatchOptions& options);

/// Where a value comes out of a graph.
struct Feature {
  std::string name;
  size_t output = 0;     // of the graph
  int64_t channels = 0;  // axis 1, of sequences [batch, length, channels] the last
  Dims dims;             // -1 where an extent is not known
};

/// Makes a value an output of the graph (the last one, unless it is one already). Throws not_found
/// with the nearest names, invalid_argument where its shape or channels are not known or it is not
/// float.
Feature add_feature(Graph& graph, const std::string& name);

struct FeatureMatch {
  Feature student;
  Feature teacher;
  bool projects() const { return student.channels != teacher.channels; }
};

/// Throws invalid_argument naming both where they differ in more than channels.
void check_match(const FeatureMatch& match);

}  // namespace narrow::train
