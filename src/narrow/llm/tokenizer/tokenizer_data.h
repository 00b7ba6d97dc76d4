// SPDX-License-Identifier: Apache-2.0
// What a tokenizer is made of, as plain data: readers of files fill it, Tokenizer is built from it.
// The steps have the names and the meaning of the Hugging Face `tokenizers` format; other formats
// are expressed in them (see docs/tokenizers.md).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace narrow::llm {

enum class TokenizerModel : uint8_t {
  bpe,          // merges with ranks
  spm_bpe,      // SentencePiece BPE: neighbours merge by the score of their union
  unigram,      // the best path by scores in double, as `tokenizers` does
  spm_unigram,  // the same in float, with the bonus of user-defined pieces, as SentencePiece does
  wordpiece,    // greedy longest match
};

/// SentencePiece's types, with the numbers of its files and of GGUF.
enum class PieceType : uint8_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6,
};

enum class SplitBehavior : uint8_t {
  removed,
  isolated,
  merged_with_previous,
  merged_with_next,
  contiguous,
};

enum class PrependScheme : uint8_t { never, first, always };

/// One change of the text before it is cut. Only the fields of its kind count.
struct NormalizerStep {
  enum class Kind : uint8_t {
    nfc,
    nfd,
    nfkc,
    nfkd,
    lowercase,
    strip_accents,
    bert,
    prepend,
    replace,
    strip,
    charsmap,       // SentencePiece's map, applied to graphemes as `tokenizers` does
    sentencepiece,  // SentencePiece's whole normalizer
    byte_level,
  };
  Kind kind = Kind::nfc;
  std::string pattern;         // replace
  std::string content;         // replace, prepend
  bool is_regex = false;       // replace
  bool left = false;           // strip
  bool right = false;          // strip
  bool clean_text = false;     // bert
  bool chinese_chars = false;  // bert
  bool strip_accents = false;  // bert
  bool lowercase = false;      // bert
  std::string charsmap;        // charsmap, sentencepiece: the compiled map; empty is the identity
  bool add_dummy_prefix = false;          // sentencepiece
  bool remove_extra_whitespaces = false;  // sentencepiece
};

/// One cut of the text into words.
struct PreTokenizerStep {
  enum class Kind : uint8_t {
    byte_level,
    split,
    whitespace,
    whitespace_split,
    bert,
    metaspace,
    digits,
    punctuation,
  };
  Kind kind = Kind::split;
  std::string pattern;                               // split
  bool is_regex = false;                             // split
  bool invert = false;                               // split
  SplitBehavior behavior = SplitBehavior::isolated;  // split, punctuation
  bool add_prefix_space = false;                     // byte_level
  bool use_regex = false;                            // byte_level
  std::string replacement;                           // metaspace: one character
  PrependScheme prepend = PrependScheme::never;      // metaspace
  bool split = false;                                // metaspace
  bool individual_digits = false;                    // digits
};

/// One step from pieces back to text.
struct DecoderStep {
  enum class Kind : uint8_t {
    byte_level,
    metaspace,
    sentencepiece,  // U+2581 is a space, at the start of the text nothing
    wordpiece,
    fuse,
    byte_fallback,
    replace,
    strip,
  };
  Kind kind = Kind::fuse;
  std::string pattern;      // replace, and metaspace's replacement, wordpiece's prefix
  std::string content;      // replace; strip: one character
  bool drop_first = false;  // metaspace: the replacement at the start is no space
  bool cleanup = false;     // wordpiece
  int start = 0;            // strip, sentencepiece: at most so many at the start
  int stop = 0;             // strip: at most so many at the end
};

/// A piece that is found in the text itself, before the model sees it.
struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;      // parsed only with parse_special, dropped by decode's skip_special
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // is searched in the normalized text
  bool single_word = false;  // only between characters that are no part of a word
};

/// Ids with a meaning, -1 where there is none.
struct SpecialIds {
  int32_t bos = -1;
  int32_t unk = -1;
  int32_t pad = -1;
  int32_t sep = -1;
  int32_t cls = -1;
  int32_t mask = -1;
  int32_t eot = -1;          // end of turn
  std::vector<int32_t> eos;  // every id that ends a generation; the first is the file's
};

struct Merge {
  std::string left;
  std::string right;
};

struct TokenizerData {
  TokenizerModel model = TokenizerModel::bpe;
  std::vector<std::string> pieces;  // by id, without holes; every piece once
  std::vector<double> scores;       // by id: spm_bpe and the unigrams; otherwise empty
  std::vector<PieceType> types;     // by id, or empty: all normal
  /// Pieces from here on are no part of the model, only added tokens; -1: all are part of it.
  int32_t model_size = -1;

  std::vector<Merge> merges;  // bpe, best first
  std::string
      continuing_prefix;    // bpe, wordpiece: stands before a symbol that does not start a word
  std::string word_prefix;  // wordpiece: stands before a symbol that starts a word
  std::string word_suffix;  // bpe: stands after the last symbol of a word
  std::string unk_piece;    // empty: none
  bool fuse_unk = false;
  bool byte_fallback = false;  // unknown characters become <0xNN>
  bool ignore_merges = false;  // bpe: a word that is a piece is that piece
  int32_t max_word_chars = 0;  // wordpiece: longer words are unknown; 0: no limit

  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  std::vector<DecoderStep> decoder;
  bool join_with_spaces = false;  // decoding without steps: a space between pieces
  std::vector<AddedToken> added;

  std::vector<int32_t> prefix_ids;  // put around the text with add_special
  std::vector<int32_t> suffix_ids;
  SpecialIds special;
  std::string unk_surface;    // what decoding says for an unknown piece; empty: the piece
  std::string chat_template;  // carried along, not interpreted
};

/// Throws corrupt_data, naming the place, when sizes, ids, pieces, scores or merges do not fit
/// together. Tokenizer calls it.
void check(const TokenizerData& data);

/// "<0x0A>": the piece of a byte. -1 where `piece` is none.
int byte_of_piece(std::string_view piece);
std::string piece_of_byte(uint8_t byte);

}  // namespace narrow::llm
