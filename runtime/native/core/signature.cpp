// A signature file is one or more blocks of four lines, one for each signer:
//
//   untrusted comment: ...         nobody reads it
//   base64: "ED", the key's id, Ed25519 of the BLAKE2b-512 of the manifest
//   trusted comment: ...           fields between tabs; expires:SECONDS ends the signature at that time
//   base64: Ed25519 of the first signature and the trusted comment
#include "signature.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <optional>
#include <string_view>
#include <system_error>

#include "monocypher-ed25519.h"
#include "monocypher.h"
#include "refusal.h"

namespace paraedge {
namespace {

namespace fs = std::filesystem;

constexpr const char* kVariable = "PARAEDGE_TRUSTED_KEYS";
constexpr size_t kMaxKeys = 100, kMaxKeyFileBytes = 4096, kKeyLetters = 56;

[[noreturn]] void refuse(const std::string& path, const std::string& problem) {
  throw Refusal(ErrorCode::integrity, path + problem);
}

[[noreturn]] void refuse_key(const std::string& problem) { throw Refusal(ErrorCode::input, problem); }

int value_of_letter(char letter) {
  if (letter >= 'A' && letter <= 'Z') return letter - 'A';
  if (letter >= 'a' && letter <= 'z') return letter - 'a' + 26;
  if (letter >= '0' && letter <= '9') return letter - '0' + 52;
  return letter == '+' ? 62 : letter == '/' ? 63 : -1;
}

// Base64 of exactly N bytes in its one right spelling.
template <size_t N>
std::optional<std::array<uint8_t, N>> decode(std::string_view text) {
  constexpr size_t kPadding = (3 - N % 3) % 3, kLetters = (N + 2) / 3 * 4;
  if (text.size() != kLetters || text.substr(kLetters - kPadding) != std::string_view("==", kPadding)) return {};
  std::array<uint8_t, N> bytes{};
  uint32_t bits = 0;
  size_t held = 0, at = 0;
  for (const char letter : text.substr(0, kLetters - kPadding)) {
    const int value = value_of_letter(letter);
    if (value < 0) return {};
    bits = bits << 6 | static_cast<uint32_t>(value);
    held += 6;
    if (held >= 8) {
      held -= 8;
      bytes[at++] = static_cast<uint8_t>(bits >> held);
      bits &= (1u << held) - 1;
    }
  }
  if (bits != 0) return {};  // bits of no byte
  return bytes;
}

// Any text but control characters; tabs are fine.
bool is_comment(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == '\t' || (byte >= 0x20 && byte != 0x7f);
  });
}

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> pieces;
  for (size_t begin = 0;;) {
    const size_t end = text.find(at, begin);
    pieces.push_back(text.substr(begin, end - begin));
    if (end == std::string_view::npos) return pieces;
    begin = end + 1;
  }
}

// As minisign prints it.
std::string name_of(const std::array<uint8_t, 8>& id) {
  std::string name;
  for (size_t i = id.size(); i-- > 0;) {
    name += "0123456789ABCDEF"[id[i] >> 4];
    name += "0123456789ABCDEF"[id[i] & 15];
  }
  return name;
}

std::string names_of(std::span<const PublicKey> keys) {
  std::string names;
  for (const PublicKey& key : keys) names += (names.empty() ? "" : ", ") + name_of(key.id);
  return names;
}

struct Block {  // of one signer
  std::array<uint8_t, 8> id;
  std::array<uint8_t, 64> signature, global;
  std::string_view comment;
  int64_t expires_s = INT64_MAX;
};

// The comment's expires:SECONDS, at most once, of at most 12 digits.
bool read_expiry(Block& block) {
  constexpr std::string_view kExpires = "expires:";
  for (const std::string_view field : split(block.comment, '\t')) {
    if (!field.starts_with(kExpires)) continue;
    const std::string digits(field.substr(kExpires.size()));
    const bool is_number = !digits.empty() && digits.size() <= 12 &&
                           std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (!is_number || block.expires_s != INT64_MAX) return false;
    block.expires_s = std::stoll(digits);
  }
  return true;
}

std::vector<Block> read_signature(const std::string& path, std::string_view text) {
  constexpr std::string_view kUntrusted = "untrusted comment: ", kTrusted = "trusted comment: ";
  std::vector<std::string_view> lines = split(text, '\n');
  std::vector<Block> blocks;
  const bool ends = lines.back().empty();
  lines.pop_back();
  bool fine = ends && !lines.empty() && lines.size() % 4 == 0;
  for (size_t at = 0; fine && at < lines.size(); at += 4) {
    const auto signature = decode<74>(lines[at + 1]);
    const auto global = decode<64>(lines[at + 3]);
    fine = lines[at].starts_with(kUntrusted) && is_comment(lines[at]) && lines[at + 2].starts_with(kTrusted) &&
           is_comment(lines[at + 2]) && signature && global && (*signature)[0] == 'E' && (*signature)[1] == 'D';
    if (!fine) break;
    Block block;
    std::copy_n(signature->begin() + 2, 8, block.id.begin());
    std::copy_n(signature->begin() + 10, 64, block.signature.begin());
    block.global = *global;
    block.comment = lines[at + 2].substr(kTrusted.size());
    fine = read_expiry(block);
    blocks.push_back(block);
  }
  if (!fine) {
    refuse(path,
           ": manifest.json.minisig is damaged or not in minisign's format; sign the bundle again "
           "with 'paraedge sign'");
  }
  return blocks;
}

std::span<const uint8_t> as_bytes(std::span<const std::byte> data) {
  return {reinterpret_cast<const uint8_t*>(data.data()), data.size()};
}

// The key signed the manifest, and the signature with its comment.
bool fits(const Block& block, std::span<const uint8_t, 64> manifest_hash, const PublicKey& key) {
  if (!ed25519_check(block.signature, key.key, manifest_hash)) return false;
  std::vector<uint8_t> message(block.signature.begin(), block.signature.end());
  message.insert(message.end(), block.comment.begin(), block.comment.end());
  return ed25519_check(block.global, key.key, message);
}

std::string date_of(int64_t seconds) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  char text[16];
  if (::gmtime_r(&time, &parts) == nullptr || std::strftime(text, sizeof text, "%Y-%m-%d", &parts) == 0) {
    return std::to_string(seconds);
  }
  return text;
}

PublicKey read_key(std::string_view text, const std::string& source) {
  const auto bytes = decode<42>(text);
  if (!bytes || (*bytes)[0] != 'E' || (*bytes)[1] != 'd') {
    refuse_key(source + " is not a public key; make one with 'paraedge keygen' or minisign");
  }
  PublicKey key;
  std::copy_n(bytes->begin() + 2, 8, key.id.begin());
  std::copy_n(bytes->begin() + 10, 32, key.key.begin());
  return key;
}

std::string read_key_file(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  std::string text(kMaxKeyFileBytes + 1, '\0');
  struct stat status {};
  ssize_t got = -1;
  const bool is_file = file >= 0 && ::fstat(file, &status) == 0 && S_ISREG(status.st_mode);
  if (is_file) got = ::pread(file, text.data(), text.size(), 0);
  const int problem = errno;
  if (file >= 0) ::close(file);
  if (file >= 0 && !is_file) refuse_key("the key " + path + " cannot be read: It is not a plain file");
  if (got < 0) refuse_key("the key " + path + " cannot be read: " + std::strerror(problem));
  text.resize(static_cast<size_t>(got));
  return text;
}

// Two lines: a comment that nobody reads, and the key.
PublicKey read_key_in(const std::string& path) {
  const std::string text = read_key_file(path);
  const std::vector<std::string_view> lines = split(text, '\n');
  const bool fine = text.size() <= kMaxKeyFileBytes && lines.size() == 3 && lines[2].empty() &&
                    lines[0].starts_with("untrusted comment: ") && is_comment(lines[0]);
  return read_key(fine ? lines[1] : std::string_view(), path);
}

// All *.pub in it, by name.
std::vector<std::string> key_files(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code problem;
  fs::directory_iterator entry(folder, problem), end;
  for (; !problem && entry != end; entry.increment(problem)) {
    if (entry->path().extension() == ".pub") files.push_back(entry->path().string());
    if (files.size() > kMaxKeys) refuse_key(folder + " has more than " + std::to_string(kMaxKeys) + " keys");
  }
  if (problem) refuse_key("the keys in " + folder + " cannot be read: " + problem.message());
  if (files.empty())
    refuse_key("the folder " + folder + " has no key (*.pub); put the public keys that you trust there");
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

std::vector<PublicKey> read_trusted_keys(std::span<const std::string> given) {
  std::vector<PublicKey> keys;
  for (const std::string& one : given) {
    std::error_code problem;
    if (one.empty() || one.find('\0') != std::string::npos) {
      refuse_key("a trusted key is empty; name a public key, its file, or a folder of them");
    }
    if (one.size() == kKeyLetters && one.starts_with("RW")) {
      keys.push_back(read_key(one, "'" + one + "'"));
    } else if (fs::is_directory(one, problem)) {
      for (const std::string& file : key_files(one)) keys.push_back(read_key_in(file));
    } else {
      keys.push_back(read_key_in(one));
    }
    if (keys.size() > kMaxKeys) refuse_key("there are more than " + std::to_string(kMaxKeys) + " trusted keys");
  }
  if (keys.empty()) refuse_key("no trusted key is named; name a public key, its file, or a folder of them");
  return keys;
}

std::vector<PublicKey> trusted_keys_of_environment() {
  const char* value = std::getenv(kVariable);
  if (value == nullptr) return {};
  const std::string given = value;
  if (given.empty()) {
    refuse_key(std::string(kVariable) + " is empty; name a public key, its file or a folder of them, or unset it");
  }
  return read_trusted_keys({&given, 1});
}

void check_signature(const std::string& path, std::span<const std::byte> manifest, std::span<const std::byte> signature,
                     std::span<const PublicKey> keys) {
  if (signature.empty()) {
    refuse(path, " is not signed, and trusted keys are set (" + names_of(keys) +
                     "); sign it with 'paraedge sign'");
  }
  const std::string_view text(reinterpret_cast<const char*>(signature.data()), signature.size());
  const std::vector<Block> blocks = read_signature(path, text);
  std::array<uint8_t, 64> hash;
  crypto_blake2b(hash.data(), as_bytes(manifest).data(), manifest.size());
  std::string signers, expired;
  bool trusted = false;
  for (const Block& block : blocks) {
    signers += (signers.empty() ? "" : ", ") + name_of(block.id);
    std::vector<PublicKey> named;
    std::copy_if(keys.begin(), keys.end(), std::back_inserter(named), [&](auto& key) { return key.id == block.id; });
    if (named.empty()) continue;
    if (std::none_of(named.begin(), named.end(), [&](auto& key) { return fits(block, hash, key); })) {
      refuse(path, ": the signature of key " + name_of(block.id) +
                       " does not match manifest.json; one of the two was changed, copy the bundle again");
    }
    if (block.expires_s <= static_cast<int64_t>(std::time(nullptr))) {
      expired = ": the signature of key " + name_of(block.id) + " ended on " + date_of(block.expires_s) +
                "; take a newer bundle, or sign this one again";
      continue;
    }
    trusted = true;
  }
  if (trusted) return;
  if (!expired.empty()) refuse(path, expired);
  refuse(path, " is signed by " + signers + ", which is not among the trusted keys (" + names_of(keys) +
                   "); sign it with one of them, or trust that key");
}

bool ed25519_check(std::span<const uint8_t, 64> signature, std::span<const uint8_t, 32> key,
                   std::span<const uint8_t> message) {
  return crypto_ed25519_check(signature.data(), key.data(), message.data(), message.size()) == 0;
}

}  // namespace paraedge
