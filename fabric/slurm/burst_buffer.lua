-- SPDX-License-Identifier: MIT
-- Memory of a pool as a burst buffer of Slurm (burst_buffer/lua): a job's script says
--
--     #WEFT size=64G [copies=1|2|3] [as=file|device]
--
-- and the job waits until the pool has it, which its first node then gets.  (The word "capacity" is
-- for what Slurm counts itself, and the pool counts this.)  This file lies beside
-- slurm.conf, which has BurstBufferType=burst_buffer/lua; burst_buffer.conf has
--
--     Directive=WEFT
--
-- The nodes' part is weft-slurm's, as Prolog, TaskProlog and Epilog.

-- What stands for the coordinator, if it is not this machine's: "WEFT_POOL=https://head ".
local environment = ""
local weft = environment .. "weft"
local SECONDS_BETWEEN = 5

-- What a command says, and whether it succeeded.
local function run(command)
	local pipe = io.popen(command .. " 2>&1; echo $?")
	local said = pipe:read("*a")
	pipe:close()
	local text, status = said:match("^(.-)%s*(%d+)%s*$")
	return text, status == "0"
end

-- As one word of a shell.
local function quoted(text)
	return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- What a line of a job's script asks for; false: nonsense.
local function wish_of(words)
	local ret = {copies = "1", form = "file"}
	for word in words:gmatch("%S+") do
		local key, value = word:match("^(%a+)=(%S+)$")
		if key == "size" and value:match("^%d+%.?%d*[KMGTkmgt]?[iI]?[bB]?$") then
			ret.size = value
		elseif key == "copies" and value:match("^[123]$") then
			ret.copies = value
		elseif key == "as" and (value == "file" or value == "device") then
			ret.form = value
		else
			return false
		end
	end
	return ret.size and ret or false
end

-- What a job's script asks for; nil: nothing; false: nonsense.
local function wanted(script)
	local file, ret = io.open(script), nil
	if not file then
		return nil
	end
	for line in file:lines() do
		local words = line:match("^#WEFT%s+(.*)$")
		if words and ret ~= false then
			ret = wish_of(words)
		end
	end
	file:close()
	return ret
end

-- When the job is submitted.
function slurm_bb_job_process(script)
	if wanted(script) == false then
		return slurm.ERROR, "say #WEFT size=64G [copies=1|2|3] [as=file|device]"
	end
	return slurm.SUCCESS
end

-- While the job is in the queue; it stays there until this returns.
function slurm_bb_setup(job, uid, gid, pool, bytes, script)
	local want = wanted(script)
	if not want then
		return slurm.SUCCESS
	end
	local owner, known = run(string.format("id -nu %d", tonumber(uid)))
	if not known then
		return slurm.ERROR, owner
	end
	local lease = string.format("job-%d.any.%s", tonumber(job), want.form)
	while true do
		local said, done = run(string.format(
			"%s pool alloc %s --size %s --mirror %s --for %d --owner %s --keep 86400",
			weft, lease, want.size, want.copies, tonumber(job), quoted(owner)))
		if done then
			return slurm.SUCCESS, said
		end
		if not said:match("has room") and not said:match("want as many donors") and
			not said:match("does not answer") then
			return slurm.ERROR, said
		end
		run("sleep " .. SECONDS_BETWEEN)
	end
end

-- However the job has ended; the node's part has been done, or is under way.
function slurm_bb_job_teardown(job, script, hurry)
	local said, done = run(string.format("%s pool release --for %d", weft, tonumber(job)))
	return done and slurm.SUCCESS or slurm.ERROR, said
end

local function nothing()
	return slurm.SUCCESS, ""
end

slurm_bb_pools = nothing
slurm_bb_data_in = nothing
slurm_bb_test_data_in = nothing
slurm_bb_paths = nothing
slurm_bb_pre_run = nothing
slurm_bb_post_run = nothing
slurm_bb_data_out = nothing
slurm_bb_test_data_out = nothing

function slurm_bb_real_size(job)
	return slurm.SUCCESS, "0"
end

function slurm_bb_get_status(...)
	return slurm.SUCCESS, (run(weft .. " pool status"))
end
