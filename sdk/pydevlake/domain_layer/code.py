"""Repositories, commits, refs and pull requests."""

from datetime import datetime
from typing import Optional

from pydevlake.fields import Field
from pydevlake.model import Base, DomainModel, DomainScope, NoPKModel


class PullRequest(DomainModel, table=True):
    __tablename__ = "pull_requests"

    base_repo_id: Optional[str] = None
    head_repo_id: Optional[str] = None
    status: Optional[str] = None
    original_status: Optional[str] = None
    title: Optional[str] = None
    description: Optional[str] = None
    url: Optional[str] = None
    author_name: Optional[str] = None
    author_id: Optional[str] = None
    parent_pr_id: Optional[str] = None
    pull_request_key: Optional[int] = None
    created_date: Optional[datetime] = None
    merged_date: Optional[datetime] = None
    closed_date: Optional[datetime] = None
    type: Optional[str] = None
    component: Optional[str] = None
    merge_commit_sha: Optional[str] = None
    head_ref: Optional[str] = None
    base_ref: Optional[str] = None
    base_commit_sha: Optional[str] = None
    head_commit_sha: Optional[str] = None


class PullRequestLabels(NoPKModel, table=True):
    __tablename__ = "pull_request_labels"

    pull_request_id: str = Field(primary_key=True)
    label_name: str = Field(primary_key=True)


class PullRequestCommit(NoPKModel, table=True):
    __tablename__ = "pull_request_commits"

    commit_sha: str = Field(primary_key=True)
    pull_request_id: str = Field(primary_key=True)
    commit_author_name: Optional[str] = None
    commit_author_email: Optional[str] = None
    commit_authored_date: Optional[datetime] = None


class PullRequestComment(DomainModel, table=True):
    __tablename__ = "pull_request_comments"

    pull_request_id: Optional[str] = None
    body: Optional[str] = None
    account_id: Optional[str] = None
    created_date: Optional[datetime] = None
    commit_sha: Optional[str] = None
    type: Optional[str] = None
    review_id: Optional[str] = None
    status: Optional[str] = None


class Commit(NoPKModel, table=True):
    __tablename__ = "commits"

    sha: str = Field(primary_key=True)
    additions: Optional[int] = None
    deletions: Optional[int] = None
    dev_eq: Optional[int] = None
    message: Optional[str] = None
    author_name: Optional[str] = None
    author_email: Optional[str] = None
    authored_date: Optional[datetime] = None
    author_id: Optional[str] = None
    committer_name: Optional[str] = None
    committer_email: Optional[str] = None
    committed_date: Optional[datetime] = None
    committer_id: Optional[str] = None


class CommitParent(NoPKModel, table=True):
    __tablename__ = "commit_parents"

    commit_sha: str = Field(primary_key=True)
    parent_commit_sha: str = Field(primary_key=True)


class CommitsDiff(Base, table=True):
    __tablename__ = "commits_diffs"

    new_commit_sha: str = Field(primary_key=True)
    old_commit_sha: str = Field(primary_key=True)
    commit_sha: str = Field(primary_key=True)
    sorting_index: Optional[int] = None


class RefCommit(Base, table=True):
    __tablename__ = "ref_commits"

    new_ref_id: str = Field(primary_key=True)
    old_ref_id: str = Field(primary_key=True)
    new_commit_sha: Optional[str] = None
    old_commit_sha: Optional[str] = None


class Component(Base, table=True):
    __tablename__ = "components"

    repo_id: Optional[str] = None
    name: str = Field(primary_key=True)
    path_regex: Optional[str] = None


class Ref(DomainModel, table=True):
    __tablename__ = "refs"

    repo_id: Optional[str] = None
    name: Optional[str] = None
    commit_sha: Optional[str] = None
    is_default: Optional[bool] = None
    ref_type: Optional[str] = None
    created_date: Optional[datetime] = None


class RefsPrCherryPick(NoPKModel, table=True):
    __tablename__ = "refs_pr_cherrypicks"

    repo_name: Optional[str] = None
    parent_pr_key: Optional[int] = None
    cherrypick_base_branches: Optional[str] = None
    cherrypick_pr_keys: Optional[str] = None
    parent_pr_url: Optional[str] = None
    parent_pr_id: str = Field(primary_key=True)


class Repo(DomainScope, table=True):
    __tablename__ = "repos"

    name: Optional[str] = None
    url: Optional[str] = None
    description: Optional[str] = None
    owner_id: Optional[str] = None
    language: Optional[str] = None
    forked_from: Optional[str] = None
    created_date: Optional[datetime] = None
    updated_date: Optional[datetime] = None
    deleted: Optional[bool] = None


class RepoLanguage(Base, table=True):
    __tablename__ = "repo_languages"

    # The server's table has no key; a row is one language of one repository.
    repo_id: str = Field(primary_key=True)
    language: str = Field(primary_key=True)
    bytes: Optional[int] = None


class RepoCommit(NoPKModel, table=True):
    __tablename__ = "repo_commits"

    repo_id: str = Field(primary_key=True)
    commit_sha: str = Field(primary_key=True)
