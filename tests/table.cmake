# SPDX-License-Identifier: MIT
# The table of all tests.  ctest reads it each time that it starts, through
# build/PRESET/tests/table.cmake, which calls weft_program_test() for each program and then
# weft_shell_tests(); tests/run asks ctest for it.
#
# ctest's configuration is the tier: `ctest -C long` and `ctest -C soak` add the second and the
# third to the first.  Each test has the labels tier=, preset=, kind= and area=, which is the first
# word of its name.
#
# A shell test may say in its first twelve lines:
#     # tier: long               first, unless it says
#     # presets: dev asan        where it runs in its own tier (dev, unless it says); everywhere else in the second
#     # presets: release only    and nowhere else
#     # timeout: SECONDS         120, unless it says
#     # processors: 2            that it keeps busy (1)
#     # serial                   runs alone
#
# The presets of what else weft is built with, and for, run the C programs alone, in the second
# tier.
#
# The file that includes this one has set WEFT_SOURCE, WEFT_BUILD, WEFT_PRESET and WEFT_EMULATOR:
# what runs a program of another architecture.  A preset in a test's label may be another way to run
# the programs of a build: valgrind those of dev, arm64-64k those of arm64 with pages of 64 KiB.

cmake_policy(VERSION 3.25)
set(WEFT_TIERS first long soak)
set(WEFT_PRESETS dev release asan tsan fuzz coverage)
set(WEFT_PRESETS_ELSEWHERE clang arm64 s390x)
set(WEFT_TIER first)
if("${CTEST_CONFIGURATION_TYPE}" IN_LIST WEFT_TIERS)
	set(WEFT_TIER ${CTEST_CONFIGURATION_TYPE})
endif()

# weft_tier_runs(TIER RET): whether what belongs to TIER runs now
function(weft_tier_runs tier ret)
	list(FIND WEFT_TIERS ${tier} its)
	list(FIND WEFT_TIERS ${WEFT_TIER} ours)
	set(runs NO)
	if(NOT its GREATER ours)
		set(runs YES)
	endif()
	set(${ret} ${runs} PARENT_SCOPE)
endfunction()

# weft_table_row(TEST PRESET TIER TIMEOUT COMMAND…): TEST is KIND/NAME
function(weft_table_row test preset tier timeout)
	weft_tier_runs(${tier} runs)
	if(NOT runs)
		return()
	endif()
	string(REGEX MATCH "^([^/]*)/([^-]*)" unused ${test})
	set(labels tier=${tier} preset=${preset} kind=${CMAKE_MATCH_1} area=${CMAKE_MATCH_2})
	if(NOT preset STREQUAL WEFT_PRESET) # beside the same test as it is otherwise run
		set(test ${preset}/${test})
	endif()
	# tests/run-one keeps the time, and tells; ctest's limit is for what it could not end.
	math(EXPR limit "${timeout} + 60")
	add_test(${test} ${WEFT_SOURCE}/tests/run-one ${WEFT_BUILD} ${preset} ${WEFT_TIER}
		${timeout} ${ARGN})
	set_tests_properties(${test} PROPERTIES LABELS "${labels}" TIMEOUT ${limit} SKIP_RETURN_CODE
		77
		WORKING_DIRECTORY ${WEFT_SOURCE})
endfunction()

# weft_program_test(KIND NAME TIMEOUT PROGRAM): of a C program that the build has
function(weft_program_test kind name timeout program)
	set(test ${kind}/${name})
	if(kind STREQUAL "fuzz")
		set(seconds 5)
		if(WEFT_TIER STREQUAL "long")
			set(seconds 120)
		elseif(WEFT_TIER STREQUAL "soak")
			set(seconds 3600)
		endif()
		math(EXPR timeout "${seconds} + 60")
		weft_table_row(${test} fuzz first ${timeout} ${WEFT_SOURCE}/tests/fuzz/run
			${seconds} ${program})
	elseif(WEFT_PRESET STREQUAL "release") # dev has them in the first tier
		weft_table_row(${test} release long ${timeout} ${program})
	elseif(WEFT_PRESET IN_LIST WEFT_PRESETS_ELSEWHERE)
		weft_table_row(${test} ${WEFT_PRESET} long ${timeout} ${WEFT_EMULATOR} ${program})
	elseif(WEFT_PRESET STREQUAL "tsan")
		weft_table_row(${test} tsan first ${timeout} setarch -R ${program})
	else()
		weft_table_row(${test} ${WEFT_PRESET} first ${timeout} ${program})
	endif()
	if(WEFT_PRESET STREQUAL "dev")
		math(EXPR timeout "${timeout} * 10")
		weft_table_row(${test} valgrind long ${timeout} valgrind -q --error-exitcode=99
			--leak-check=full
			--errors-for-leak-kinds=definite ${program})
	elseif(WEFT_PRESET STREQUAL "arm64")
		weft_table_row(${test} arm64-64k long ${timeout} ${WEFT_EMULATOR} -p 65536
			${program})
	endif()
endfunction()

# weft_shell_test(FILE)
function(weft_shell_test file)
	get_filename_component(name ${file} NAME_WE)
	set(tier first)
	set(presets dev)
	set(timeout 120)
	set(processors 1)
	set(serial NO)
	file(STRINGS ${file} lines LIMIT_INPUT 4096)
	list(SUBLIST lines 0 12 lines)
	foreach(line IN LISTS lines)
		if(line MATCHES "^# (tier|presets|timeout|processors): *(.*)$")
			set(${CMAKE_MATCH_1} ${CMAKE_MATCH_2})
		elseif(line STREQUAL "# serial")
			set(serial YES)
		endif()
	endforeach()
	separate_arguments(presets)
	if("only" IN_LIST presets)
		list(REMOVE_ITEM presets only)
		if(NOT WEFT_PRESET IN_LIST presets)
			return()
		endif()
	endif()
	foreach(preset IN LISTS presets)
		if(NOT preset IN_LIST WEFT_PRESETS)
			message(FATAL_ERROR "${file}: there is no preset ${preset}")
		endif()
	endforeach()
	if(NOT tier IN_LIST WEFT_TIERS)
		message(FATAL_ERROR "${file}: there is no tier ${tier}")
	endif()
	if(NOT WEFT_PRESET IN_LIST presets AND tier STREQUAL "first")
		set(tier long)
	endif()
	set(command bash ${file})
	if(WEFT_PRESET STREQUAL "tsan")
		set(command setarch -R bash ${file})
	endif()
	weft_table_row(shell/${name} ${WEFT_PRESET} ${tier} ${timeout} ${command})
	weft_tier_runs(${tier} runs)
	if(runs)
		set_tests_properties(shell/${name} PROPERTIES PROCESSORS ${processors} RUN_SERIAL
			${serial})
	endif()
endfunction()

# weft_shell_tests(): those of tests/shell, which no build is needed for
function(weft_shell_tests)
	if(WEFT_PRESET STREQUAL "fuzz" OR WEFT_PRESET IN_LIST WEFT_PRESETS_ELSEWHERE)
		return()
	endif()
	file(GLOB files ${WEFT_SOURCE}/tests/shell/*.sh)
	foreach(file IN LISTS files)
		weft_shell_test(${file})
	endforeach()
endfunction()
