"""Tasks of DevLake's own plugins for the pipelines of a plugin."""

from typing import Optional

from pydantic import BaseModel, ConfigDict

from pydevlake.message import PipelineTask
from pydevlake.naming import camel_case


def gitextractor(
    url: str,
    repo_name: str,
    scope_id: str,
    proxy: Optional[str],
    no_shallow_clone: Optional[bool] = False,
) -> PipelineTask:
    """Clone a repository and read its commits and refs."""
    return PipelineTask(
        plugin="gitextractor",
        options={
            "url": url,
            "name": repo_name,
            "fullName": repo_name,
            "repoId": scope_id,
            "proxy": proxy,
            "noShallowClone": no_shallow_clone,
        },
    )


class RefDiffOptions(BaseModel):
    """The tags that refdiff compares: their number, order and pattern (a Go expression)."""

    model_config = ConfigDict(alias_generator=camel_case, populate_by_name=True)

    tags_limit: Optional[int] = 10
    tags_order: Optional[str] = "reverse semver"
    tags_pattern: Optional[str] = r"/v\d+\.\d+(\.\d+(-rc)*\d*)*$/"


def refdiff(repo_id: str, options: Optional[RefDiffOptions] = None) -> PipelineTask:
    """Compute the commits and issues between two tags."""
    options = options or RefDiffOptions()
    return PipelineTask(
        plugin="refdiff",
        options={
            "repoId": repo_id,
            "tagsLimit": options.tags_limit,
            "tagsOrder": options.tags_order,
            "tagsPattern": options.tags_pattern,
        },
    )
