// Who signed a manifest: minisign's signature files, checked against trusted keys. The rules are those of
// docs/bundle-format.md and of signature.py.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace paraedge {

struct PublicKey {
  std::array<uint8_t, 8> id;
  std::array<uint8_t, 32> key;
};

// Each of `given` is a public key (56 letters), its file, or a folder of such files (*.pub). Throws Refusal
// (ErrorCode::input).
std::vector<PublicKey> read_trusted_keys(std::span<const std::string> given);

// What PARAEDGE_TRUSTED_KEYS names; empty if it is not set. Throws Refusal (ErrorCode::input).
std::vector<PublicKey> trusted_keys_of_environment();

// Throws Refusal (ErrorCode::integrity) unless one of `keys`, which are not none, signed the manifest. `signature` is
// what manifest.json.minisig holds, empty if there is no such file. `path` is for messages.
void check_signature(const std::string& path, std::span<const std::byte> manifest, std::span<const std::byte> signature,
                     std::span<const PublicKey> keys);

// An Ed25519 signature (RFC 8032) of `message`.
bool ed25519_check(std::span<const uint8_t, 64> signature, std::span<const uint8_t, 32> key,
                   std::span<const uint8_t> message);

}  // namespace paraedge
