# source uv_shim.sh [FILE]: what uv, pip and others install in this shell is written into
# FILE, a Containerfile. For bash and zsh. Written by clayer init skill.
_clayer_skill=$(dirname -- "${BASH_SOURCE:-$0}")
if _clayer_skill=$(python3 "$_clayer_skill/layer_cache.py") && _clayer_skill=$("$_clayer_skill" shim source); then
	eval "$_clayer_skill"
	unset _clayer_skill
else
	unset _clayer_skill
	return 1
fi
