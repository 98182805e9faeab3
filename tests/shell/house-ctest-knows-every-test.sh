# SPDX-License-Identifier: MIT
# ctest knows every test, with what the heads of the shell tests say, and tests/run runs what ctest
# knows.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
need_tool python3 jq

cd "$WEFT_SRC"
for tier in first soak; do
	ctest --test-dir "$WEFT_BUILD" -C "$tier" --show-only=json-v1 >"$TMP/$tier.json" ||
		fail "ctest does not list the tests"
done
WEFT_TESTS_OF=$WEFT_PRESET python3 - "$TMP/first.json" "$TMP/soak.json" <<'PY'
import glob, json, os, re, sys

preset, bad = os.environ["WEFT_TESTS_OF"], []

def table(path):
    rows = {}
    for test in json.load(open(path))["tests"]:
        properties = {p["name"]: p["value"] for p in test["properties"]}
        labels = dict(label.split("=") for label in properties["LABELS"])
        if labels["preset"] == preset:
            rows[test["name"]] = (labels, properties)
    return rows

first, soak = table(sys.argv[1]), table(sys.argv[2])
expected = {}
for path in glob.glob("tests/unit/*.c") + glob.glob("tests/conformance/*.c"):
    if re.search(r"^int main\(", open(path).read(), re.M):
        expected[path[len("tests/"):-len(".c")]] = {"tier": "long" if preset == "release" else "first"}
for path in glob.glob("tests/shell/*.sh"):
    head = "".join(open(path).readlines()[:12])
    said = dict(re.findall(r"^# (tier|presets|timeout|processors): *(.+)$", head, re.M))
    presets = said.get("presets", "dev").split()
    if preset not in presets and "only" in presets:
        continue
    tier = said.get("tier", "first")
    expected[path[len("tests/"):-len(".sh")]] = {
        "tier": tier if preset in presets or tier == "soak" else "long",
        "timeout": int(said.get("timeout", 120)) + 60,
        "processors": int(said.get("processors", 1)),
        "serial": bool(re.search(r"^# serial$", head, re.M)),
    }
bad += [f"{name}: ctest does not know it" for name in expected if name not in soak]
bad += [f"{name}: ctest has it, and tests/ has not" for name in soak if name not in expected]
for name in expected.keys() & soak.keys():
    labels, properties = soak[name]
    is_so = {
        "tier": labels["tier"],
        "timeout": int(properties["TIMEOUT"]),
        "processors": int(properties.get("PROCESSORS", 1)),
        "serial": bool(properties.get("RUN_SERIAL")),
    }
    bad += [f"{name}: {key} is {is_so[key]}, and should be {value}" for key, value in expected[name].items() if is_so[key] != value]
    kind, _, rest = name.partition("/")
    if (labels["kind"], labels["area"]) != (kind, rest.split("-")[0]):
        bad.append(f"{name}: labelled {labels}")
    if properties.get("SKIP_RETURN_CODE") != 77:
        bad.append(f"{name}: a skip would not be seen")
    if (name in first) != (labels["tier"] == "first"):
        bad.append(f"{name}: its tier is {labels['tier']}, and without -C it is{' not' * (name not in first)} run")
print("\n".join(bad))
sys.exit(1 if bad or len(expected) < 100 else 0)
PY

# tests/run takes what is built below build/.
[[ $WEFT_BUILD -ef build/$WEFT_PRESET ]] || exit 0
for tier in '' --long --soak; do
	tests/run --list ${tier:+"$tier"} --preset "$WEFT_PRESET" | cut -f 2 | sort >"$TMP/ran"
	ctest --test-dir "$WEFT_BUILD" -C "${tier#--}" -L "preset=$WEFT_PRESET" \
		--show-only=json-v1 | jq -r '.tests[].name' | sort >"$TMP/ctest"
	diff "$TMP/ran" "$TMP/ctest" || fail "tests/run $tier and ctest do not run the same tests"
done
tests/run --list --long --preset "$WEFT_PRESET" unit/uri shell/house-ctest >"$TMP/ran"
printf '%s\t%s\n' "$WEFT_PRESET" shell/house-ctest-knows-every-test "$WEFT_PRESET" unit/uri |
	diff - <(sort "$TMP/ran")
