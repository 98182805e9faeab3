# SPDX-License-Identifier: MIT
# What `weft status --json` may say: an object for an object, an array of one for a list, types with
# "|" between for the rest; a key that ends with "?" may be missing.  Prints a line for each thing
# that is otherwise.  weft-status(1) has the words.  With --arg keys yes: the names of all keys
# instead.  With --arg of keyring: the same of `weft key list --json`, with --arg of swaps: of
# `weft swap status --json`, with --arg of looks: of `weft rescue --copies --json`, with --arg of
# comparison: of `weft verify --json`, with --arg of moves, trials, resolutions: of the lines of
# `weft move --json`, and of those with --dry-run and --resolve, as lists; with --arg of pool: of
# an object of all that `weft pool` says, by what it is.
def key: {identity: "string", file: "string"};
def latency: {count: "number", sum: "number", p50: "number|null", p99: "number|null", max: "number|null"};
def link: {
	lane: "number", state: "string", path: "string", generation: "string", requests: "number", in_flight: "number",
	reconnects: "number", renewals: "number", buffer_bytes: "number",
	last_trouble: "string|null"
};
def strangers: {now: "number", max: "number", addresses: "number", entered: "number", made_room: "number"};
def locked: {
	locked_bytes: "number", faults_major: "number", faults_minor: "number",
	oom_score_adj: "number", io_flusher: "boolean",
	reserve_bytes: "number", reserve_free_bytes: "number", grown_bytes: "number"
};
def mirrored: {
	copies: "number", min_copies: "number", current: "number", state: "string",
	members: [{
		donor: "string", stripe: "number", copy: "number", state: "string",
		generation: "string", behind_bytes: "number", since: "number|null",
		silent_s: "number", eta_s: "number|null", why: "string|null"
	}]
};
def attachment: {
	schema: "number", kind: "string", name: "string", uri: "string", state: "string", why: "string|null", pid: "number",
	socket: "string|null", "socket_tenure?": "string|null", mount: "string|null", device: "string|null",
	"key?": key, "ending?": "string", "mounted?": "boolean",
	"attach_again?": "string", "directory?": "string", "cache_file?": "string", "unsaved_bytes?": "number|null",
	"cache_file_trouble?": "string",
	# What only a bridge that answers tells.
	"region?": "string", "size_bytes?": "number", "epoch?": "string|null", "generation?": "string", "mode?": "string",
	"transport?": "string", "transport_why?": "string|null", "transport_since_s?": "number", "transport_changes?": "number",
	"offers?": "string", "uptime_s?": "number", "silent_s?": "number", "waiting_requests?": "number", "reconnects?": "number",
	"stripe_bytes?": "number|null", "device_why?": "string|null", "clients?": ["string"],
	"donors?": [{
		uri: "string", region: "string", size_bytes: "number", epoch: "string|null", generation: "string", transport: "string",
		transport_why: "string|null", transport_since_s: "number", transport_changes: "number",
		restorable: "boolean",
		moved_from: "string|null", moving_to: "string|null",
		"key?": key, ways: [{transport: "string", host: "string|null", port: "string|null"}]
	}],
	"requests?": {read: "number", write: "number", flush: "number", trim: "number", zero: "number", cache: "number"},
	"errors?": "number", "read_bytes?": "number", "written_bytes?": "number", "operations?": "number", "posts?": "number",
	"latency_s?": {read: latency, write: latency, flush: latency},
	"cache?": {
		size_bytes: "number", chunk_bytes: "number", valid_bytes: "number", dirty_bytes: "number", lost_bytes: "number", bad_blocks: "number",
		"sealed?": {kind: "string", algorithm: "string"},
		policy: "string", hits: "number", misses: "number", fetched_bytes: "number", pushed_bytes: "number", push_errors: "number", push_failing: "boolean",
		ahead: {fetched_bytes: "number", used_bytes: "number", wasted_bytes: "number"},
		pull: {state: "string", done_bytes: "number", fetched_bytes: "number"},
		path: {round_trip_s: "number", rate_bytes_per_s: "number"}
	},
	"copies?": mirrored,
	"kernel_socket?": {
		state: "string", path: "string", sockets: "number", timeout_s: "number"
	},
	"swap?": locked,
	"placing?": {"why?": "string", "device?": "string", "nodes?": "string", "processors?": "string"},
	"lanes?": [link + {"links?": [link]}],
	"recorder?": [[{
		event: "string", age_s: "number", error: "string|null", "kind?": "string", "offset_bytes?": "number", "length_bytes?": "number",
		"fua?": "boolean", "duration_s?": "number", "generation?": "string", "operations?": "number"
	}]]
};
def counters: {
	connections: "number", accepted: "number", refused: "number", requests: "number",
	read_bytes: "number", written_bytes: "number", errors: "number", "sense?": "object"
};
def donor: {
	schema: "number", kind: "string", version: "string", pid: "number", uptime_s: "number", lease_s: "number", listen: ["string"],
	directory: "string|null", "keys?": {directory: "string", identities: "number"},
	"allow_insecure?": "boolean",
	regions: [{
		name: "string", description: "string", size_bytes: "number", backing: "string", read_only: "boolean", locked: "boolean",
		epoch: "string", tenure: "string", recovered: "boolean", kept_by: "string|null", trouble: "string|null",
		"marked?": "boolean", "mark_s?": "number", "was_marked?": "boolean"
	}],
	attachments: [{
		region: "string", name: "string", mode: "string", generation: "string", connections: "number", peer: "string|null",
		transport: "string|null", "identity?": "string|null", "encrypted?": "boolean",
		silent_s: "number", lease_left_s: "number|null"
	}],
	strangers: {tcp: strangers, "rdma?": strangers, "srp?": strangers},
	counters: counters,
	"transports?": {tcp: counters, "rdma?": counters, "srp?": counters},
	"moves?": {
		taking: [{
			move: "string", region: "string", from: "string", to: "string",
			phase: "string", size_bytes: "number", copied_bytes: "number",
			left_bytes: "number", checked_bytes: "number", bytes_per_s: "number",
			dirty_bytes_per_s: "number", round: "number", eta_s: "number|null",
			downtime_s: "number|null", borrowers: "number", waiting: "number",
			who: "string", error: "string|null"
		}],
		noted: [{
			region: "string", is: "string", from: "string", to: "string",
			epoch: "string"
		}]
	},
	"pool?": {
		url: "string", donor: "string", joined: "boolean", why: "string|null",
		lent_bytes: "number", used_bytes: "number", pressed: "boolean",
		give_back_bytes: "number"
	}
};
def held: {region: "string", size_bytes: "number", epoch: "string", listen: "string", holder_pid: "number", left_s: "number"};
def whole: {attachments: [attachment], donors: [donor], held: [held]};
def keyring: {
	directory: "string|null",
	keys: [{
		name: "string", identity: "string", other_identity: "string|null",
		usable: "boolean", expired: "boolean", expires: "string|null",
		regions: "array|null", read_only: "boolean", max_bytes: "number|null",
		max_sessions: "number|null", from: "array|null", admin: "boolean",
		pool_donor: "boolean",
		rdma_plaintext: "boolean"
	}]
};
def swaps: {
	schema: "number", available_bytes: "number", zswap: "string|null",
	processes_all: "number", processes_swap_bytes: "number",
	processes: [{pid: "number", name: "string", swap_bytes: "number"}],
	others: [{
		path: "string", compressed_memory: "boolean", priority: "number",
		size_bytes: "number", used_bytes: "number"
	}],
	swaps: [{
		name: "string", priority: "number", exclusive: "boolean",
		group: {
			path: "string", high_bytes: "number|null", memory_bytes: "number|null",
			swap_max_bytes: "number|null", swap_bytes: "number|null"
		},
		settings: [{file: "string", was: "string", now: "string|null"}],
		spaces: [{
			attachment: "string", device: "string|null", uri: "string",
			active: "boolean", size_bytes: "number", used_bytes: "number",
			pages_in: "number|null", pages_out: "number|null",
			pages_in_per_s: "number|null", pages_out_per_s: "number|null",
			state: "string", why: "string|null", silent_s: "number|null", swap: locked,
			copies: mirrored,
			latency_s: {read: latency, write: latency, flush: latency},
			donors: [{uri: "string", transport: "string|null",
				plaintext: "boolean|null", lost_bytes: "number"}]
		}]
	}]
};
def moves: [{
	phase: "string", result: "string|null", move: "string", from: "string", to: "string",
	size_bytes: "number", copied_bytes: "number", left_bytes: "number", checked_bytes: "number",
	rate_bytes_per_s: "number", dirty_rate_bytes_per_s: "number", round: "number",
	borrowers: "number", eta_s: "number|null", downtime_s: "number|null", seconds: "number",
	error: "string|null"
}];
def trials: [{
	phase: "string", result: "string", from: "string", to: "string", size_bytes: "number",
	free_bytes: "number", borrowers: "number", cannot_follow: ["string"], error: "string|null"
}];
def resolutions: [{
	from: "string", to: "string", from_is: "string|null", to_is: "string|null",
	done: ["string"], owner: "string|null", error: "string|null"
}];

def pool_region: {
	region: "string", copy: "number", donor: "string", uri: "string|null", state: "string",
	size_bytes: "number", used: "boolean", silent: "boolean", moving_to: "string|null"
};
def pool_lease: {
	lease: "string", owner: "string", project: "string|null", job: "string|null",
	size_bytes: "number", copies: "number", spread: "string", state: "string",
	why: "string|null",
	made: "string", used: "string", idle_s: "number|null", regions: [pool_region],
	"explained?": {
		criteria: [{criterion: "string", met: "boolean", why: "string|null"}],
		donors: [{
			donor: "string", rack: "string|null", lent_bytes: "number",
			room_bytes: "number", regions: "number", copy: "number|null",
			fits: "boolean", why: "string"
		}]
	}
};
def pool: {
	status: {
		pool: "string", version: "string", donors: {
			known: "number", silent: "number", cordoned: "number", draining: "number",
			pressed: "number"
		},
		lent_bytes: "number", used_bytes: "number", room_bytes: "number", leases: "number",
		regions: {wanted: "number", lost: "number", ending: "number", unknown: "number"}
	},
	donors: {donors: [{
		donor: "string", uri: "string", rack: "string|null", state: "string",
		silent: "boolean", pressed: "boolean", silent_s: "number|null",
		lent_bytes: "number", used_bytes: "number", give_back_bytes: "number",
		regions: "number"
	}]},
	leases: {leases: [pool_lease]},
	alloc: pool_lease,
	quotas: {quotas: [{
		kind: "string", name: "string", quota_bytes: "number|null", held_bytes: "number",
		spent_gib_h: "number"
	}]},
	audit: [{
		nr: "number", at: "string", who: "string", what: "string", object: "string",
		detail: "string"
	}]
};

def looks: {
	regions: [{
		uri: "string", answers: "boolean", error: "string|null", set: "string|null",
		copy: "number|null", generation: "string|null", members: "array|null",
		goodbye: "boolean", used_alone: "boolean"
	}],
	sets: [{
		set: "string", copies: "number", min_copies: "number", current: ["number"],
		differ: "boolean", verdict: "string"
	}]
};
def comparison: {
	checked_bytes: "number", differing_bytes: "number", repaired_bytes: "number",
	unsettled_bytes: "number", given_up: "boolean",
	ranges: [{set: "string", offset_bytes: "number", length_bytes: "number"}]
};

# An optional object may be null as well: a cache, where there is none.
def check($schema; $path):
	($schema | type) as $kind |
	if $kind == "string" then
		type as $t | select($schema | split("|") | index([$t]) | not) | "\($path) is a \($t), not a \($schema)"
	elif $kind == "array" then
		if type != "array" then "\($path) is no list"
		else to_entries[] | .key as $i | .value | check($schema[0]; "\($path)[\($i)]") end
	elif type == "null" and ($path | test(
		"\\.(cache|copies|kernel_socket|placing|pool|sealed|swap|keys?|group)$") or
		test("\\.spaces\\[[0-9]+\\]\\.latency_s$")) then empty
	elif type != "object" then "\($path) is no object"
	else
		. as $object |
		($schema | to_entries | map({key: (.key | rtrimstr("?")), value: {schema: .value, optional: (.key | endswith("?"))}}) |
			from_entries) as $wanted |
		(keys[] | select($wanted[.] == null) | "\($path).\(.) is in no schema"),
		($wanted | to_entries[] | .key as $key |
			if $object | has($key) then .value.schema as $s | $object[$key] | check($s; "\($path).\($key)")
			elif .value.optional then empty
			else "\($path).\($key) is missing" end)
	end;
def names: if type == "object" then to_entries[] | (.key | rtrimstr("?")), (.value | names) elif type == "array" then .[] | names else empty end;

({keyring: keyring, swaps: swaps, moves: moves, trials: trials,
		resolutions: resolutions, pool: pool, looks: looks,
		comparison: comparison}[$ARGS.named.of // ""] //
	whole) as $schema |
if $keys == "yes" then [$schema | names] | unique[] else check($schema; "") end
