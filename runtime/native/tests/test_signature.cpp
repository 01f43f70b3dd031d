// Signed bundles through the shared library: what a trusted key signed is opened, nothing else.
#include <doctest/doctest.h>
#include <monocypher-ed25519.h>
#include <monocypher.h>
#include <paraedge/paraedge.h>
#include <stdlib.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <paraedge/paraedge.hpp>
#include <string>
#include <vector>

#include "application.h"

namespace {

namespace fs = std::filesystem;
using application::write;
using Bytes = std::vector<uint8_t>;

std::string base64(const Bytes& bytes) {
  const std::string letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    uint32_t group = 0;
    for (size_t i = 0; i < 3; ++i) group = group << 8 | (at + i < bytes.size() ? bytes[at + i] : 0);
    for (size_t i = 0; i < 4; ++i) text += at + i <= bytes.size() ? letters[group >> (18 - 6 * i) & 63] : '=';
  }
  return text;
}

struct KeyPair {
  explicit KeyPair(uint8_t number) {
    seed.fill(number);
    id.fill(number);
    crypto_ed25519_public_key(key.data(), seed.data());
  }
  std::string text() const {
    Bytes all = {'E', 'd'};
    all.insert(all.end(), id.begin(), id.end());
    all.insert(all.end(), key.begin(), key.end());
    return base64(all);
  }
  Bytes sign(const Bytes& message) const {
    Bytes signature(64);
    crypto_ed25519_sign(signature.data(), seed.data(), key.data(), message.data(), message.size());
    return signature;
  }
  std::array<uint8_t, 32> seed, key;
  std::array<uint8_t, 8> id;
};

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A copy of the test's bundle, and a folder of trusted keys.
class Device {
 public:
  Device() {
    std::string pattern = (fs::temp_directory_path() / "paraedge-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    root_ = pattern;
    fs::copy(application::bundle_path(), bundle(), fs::copy_options::recursive);
    fs::create_directory(root_ / "keys");
  }
  ~Device() { fs::remove_all(root_); }
  std::string bundle() const { return root_ / "b.paraedge"; }
  std::string keys() const { return root_ / "keys"; }
  void trust(const KeyPair& pair) const {
    write(root_ / "keys" / "release.pub", "untrusted comment: a key\n" + pair.text() + "\n");
  }
  void sign(const KeyPair& pair, const std::string& comment = "timestamp:1") const {
    const fs::path manifest = fs::path(bundle()) / "manifest.json";
    std::string json = read(manifest);
    const std::string field = "\"signature\": null";
    if (const size_t place = json.find(field); place != std::string::npos) {
      json.replace(place, field.size(), R"("signature": {"algorithm": "ed25519", "file": "manifest.json.minisig"})");
    }
    application::write_manifest(bundle(), json);
    Bytes hash(64);
    crypto_blake2b(hash.data(), reinterpret_cast<const uint8_t*>(json.data()), json.size());
    const Bytes signature = pair.sign(hash);
    Bytes line = {'E', 'D'}, message = signature;
    line.insert(line.end(), pair.id.begin(), pair.id.end());
    line.insert(line.end(), signature.begin(), signature.end());
    message.insert(message.end(), comment.begin(), comment.end());
    write(fs::path(bundle()) / "manifest.json.minisig", "untrusted comment: none\n" + base64(line) +
                                                            "\ntrusted comment: " + comment + "\n" +
                                                            base64(pair.sign(message)) + "\n");
  }

 private:
  fs::path root_;
};

// The message of a refusal with this code; "opened" if there is none.
std::string refusal(const std::string& bundle, const std::vector<std::string>& keys, int code) {
  std::vector<const char*> names;
  for (const std::string& key : keys) names.push_back(key.c_str());
  pe_error* error = nullptr;
  pe_bundle* opened = pe_bundle_open_signed(bundle.c_str(), names.data(), names.size(), &error);
  const auto in_cpp = paraedge::Bundle::open_signed(bundle, keys);
  CHECK(static_cast<bool>(in_cpp) == (opened != nullptr));
  if (opened != nullptr) {
    pe_bundle_free(opened);
    return "opened";
  }
  REQUIRE(error != nullptr);
  CHECK(pe_error_code(error) == code);
  const std::string message = pe_error_message(error);
  CHECK(in_cpp.error().message == message);
  pe_error_free(error);
  return message;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("what a trusted key signed is opened, nothing else") {
  const Device device;
  const KeyPair release(1), stranger(2);
  device.trust(release);
  const std::vector<std::string> keys = {device.keys()};
  CHECK(has(refusal(device.bundle(), keys, PE_ERROR_INTEGRITY), "is not signed, and trusted keys are set"));
  device.sign(release);
  CHECK(refusal(device.bundle(), keys, PE_ERROR_INTEGRITY) == "opened");
  CHECK(refusal(device.bundle(), {release.text()}, PE_ERROR_INTEGRITY) == "opened");
  CHECK(refusal(device.bundle(), {stranger.text(), device.keys() + "/release.pub"}, PE_ERROR_INTEGRITY) == "opened");
  CHECK(has(refusal(device.bundle(), {stranger.text()}, PE_ERROR_INTEGRITY), "which is not among the trusted keys"));
  device.sign(release, "timestamp:1\texpires:99999999999");
  CHECK(refusal(device.bundle(), keys, PE_ERROR_INTEGRITY) == "opened");
  device.sign(release, "timestamp:1\texpires:1000000000");
  CHECK(has(refusal(device.bundle(), keys, PE_ERROR_INTEGRITY), "ended on 2001-09-09"));
  device.sign(stranger);
  CHECK(has(refusal(device.bundle(), keys, PE_ERROR_INTEGRITY), "which is not among the trusted keys"));
  device.sign(release);
  application::write_manifest(device.bundle(), read(fs::path(device.bundle()) / "manifest.json") + " ");
  CHECK(has(refusal(device.bundle(), keys, PE_ERROR_INTEGRITY), "does not match manifest.json"));
}

TEST_CASE("no key is not every key") {
  const Device device;
  CHECK(has(refusal(device.bundle(), {}, PE_ERROR_INPUT), "no trusted key is named"));
  CHECK(has(refusal(device.bundle(), {""}, PE_ERROR_INPUT), "a trusted key is empty"));
  CHECK(has(refusal(device.bundle(), {device.keys()}, PE_ERROR_INPUT), "has no key (*.pub)"));
  CHECK(has(refusal(device.bundle(), {"nowhere"}, PE_ERROR_INPUT), "cannot be read"));
  const char* none = nullptr;
  for (const auto& [keys, count] : {std::pair<const char* const*, size_t>{nullptr, 1}, {&none, 1}}) {
    pe_error* error = nullptr;
    CHECK(pe_bundle_open_signed(device.bundle().c_str(), keys, count, &error) == nullptr);
    CHECK(pe_error_code(error) == PE_ERROR_INPUT);
    pe_error_free(error);
  }
}

TEST_CASE("the environment decides where no keys are passed") {
  const Device device;
  const KeyPair release(1);
  device.trust(release);
  REQUIRE(::setenv("PARAEDGE_TRUSTED_KEYS", device.keys().c_str(), 1) == 0);
  pe_error* error = nullptr;
  CHECK(pe_bundle_open(device.bundle().c_str(), &error) == nullptr);
  CHECK(has(pe_error_message(error), "is not signed"));
  pe_error_free(error);
  device.sign(release);
  pe_bundle* bundle = pe_bundle_open(device.bundle().c_str(), nullptr);
  CHECK(bundle != nullptr);
  pe_bundle_free(bundle);
  REQUIRE(::setenv("PARAEDGE_TRUSTED_KEYS", "", 1) == 0);
  CHECK(pe_bundle_open(device.bundle().c_str(), nullptr) == nullptr);
  REQUIRE(::unsetenv("PARAEDGE_TRUSTED_KEYS") == 0);
}
