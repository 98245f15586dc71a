package guard

import (
	"crypto/pbkdf2"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A mosquittoHash is a hash as mosquitto_passwd of Mosquitto 1 and 2.0 makes it; salt and key are base64 with padding:
//
//	$6$salt$key             SHA-512 of the password and the salt
//	$7$iterations$salt$key  PBKDF2 with HMAC-SHA-512
//
// Those of Mosquitto 2.1 are argon2id, as ours are.
type mosquittoHash struct {
	iterations int // 0: $6$
	salt, key  []byte
}

// maxIterations is what a file may ask for: no more than a small machine does in a second or two.
const maxIterations = 1_000_000

func isMosquitto(hash string) bool {
	return strings.HasPrefix(hash, "$6$") || strings.HasPrefix(hash, "$7$")
}

func parseMosquitto(hash string) (h mosquittoHash, err error) {
	parts := strings.Split(hash[3:], "$")
	if hash[1] == '7' {
		if h.iterations, err = strconv.Atoi(parts[0]); err != nil || h.iterations < 1 || h.iterations > maxIterations {
			return h, fmt.Errorf("number of iterations %q is not 1 to %d", parts[0], maxIterations)
		}
		parts = parts[1:]
	}
	if len(parts) != 2 {
		return h, errors.New("is not a whole hash of mosquitto_passwd")
	}
	if h.salt, err = base64.StdEncoding.DecodeString(parts[0]); err == nil {
		h.key, err = base64.StdEncoding.DecodeString(parts[1])
	}
	if err != nil || len(h.salt) < 8 || len(h.key) != sha512.Size {
		return h, errors.New("salt or key of a hash of mosquitto_passwd is damaged")
	}
	return h, nil
}

func (h *mosquittoHash) matches(password []byte) bool {
	var key []byte
	if h.iterations == 0 {
		sum := sha512.Sum512(append(append([]byte(nil), password...), h.salt...))
		key = sum[:]
	} else {
		var err error
		if key, err = pbkdf2.Key(sha512.New, string(password), h.salt, h.iterations, len(h.key)); err != nil {
			return false
		}
	}
	return subtle.ConstantTimeCompare(key, h.key) == 1
}
