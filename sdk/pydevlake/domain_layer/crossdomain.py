"""People, teams, projects, and what links one domain to another."""

from datetime import datetime
from typing import Optional

from pydevlake.fields import Field
from pydevlake.model import DomainModel, NoPKModel


class Account(DomainModel, table=True):
    __tablename__ = "accounts"

    email: Optional[str] = None
    full_name: Optional[str] = None
    user_name: Optional[str] = None
    avatar_url: Optional[str] = None
    organization: Optional[str] = None
    created_date: Optional[datetime] = None
    status: Optional[int] = None


class BoardRepo(NoPKModel, table=True):
    __tablename__ = "board_repos"

    board_id: str = Field(primary_key=True)
    repo_id: str = Field(primary_key=True)


class IssueCommit(NoPKModel, table=True):
    __tablename__ = "issue_commits"

    issue_id: str = Field(primary_key=True)
    commit_sha: str = Field(primary_key=True)


class IssueRepoCommit(NoPKModel, table=True):
    __tablename__ = "issue_repo_commits"

    issue_id: str = Field(primary_key=True)
    repo_url: str = Field(primary_key=True)
    commit_sha: str = Field(primary_key=True)
    host: Optional[str] = None
    namespace: Optional[str] = None
    repo_name: Optional[str] = None


class ProjectIncidentDeploymentRelationship(DomainModel, table=True):
    __tablename__ = "project_incident_deployment_relationships"

    project_name: str = Field(primary_key=True)
    deployment_id: Optional[str] = None


class ProjectMapping(NoPKModel, table=True):
    __tablename__ = "project_mapping"

    project_name: str = Field(primary_key=True)
    table: str = Field(primary_key=True)
    row_id: str = Field(primary_key=True)


class ProjectPrMetric(DomainModel, table=True):
    """The durations of a pull request, from its first commit to its deployment, in minutes."""

    __tablename__ = "project_pr_metrics"

    project_name: str = Field(primary_key=True)
    first_commit_sha: Optional[str] = None
    pr_coding_time: Optional[int] = None
    first_review_id: Optional[str] = None
    pr_pickup_time: Optional[int] = None
    pr_review_time: Optional[int] = None
    deployment_commit_id: Optional[str] = None
    pr_deploy_time: Optional[int] = None
    pr_cycle_time: Optional[int] = None


class PullRequestIssue(NoPKModel, table=True):
    __tablename__ = "pull_request_issues"

    pull_request_id: str = Field(primary_key=True)
    issue_id: str = Field(primary_key=True)
    pull_request_key: Optional[int] = None
    issue_key: Optional[str] = None


class RefsIssuesDiffs(NoPKModel, table=True):
    __tablename__ = "refs_issues_diffs"

    new_ref_id: str = Field(primary_key=True)
    old_ref_id: str = Field(primary_key=True)
    new_ref_commit_sha: Optional[str] = None
    old_ref_commit_sha: Optional[str] = None
    issue_number: Optional[str] = None
    issue_id: str = Field(primary_key=True)


class Team(DomainModel, table=True):
    __tablename__ = "teams"

    name: Optional[str] = None
    alias: Optional[str] = None
    parent_id: Optional[str] = None
    sorting_index: Optional[int] = None


class TeamUser(NoPKModel, table=True):
    __tablename__ = "team_users"

    team_id: str = Field(primary_key=True)
    user_id: str = Field(primary_key=True)


class User(DomainModel, table=True):
    __tablename__ = "users"

    name: Optional[str] = None
    email: Optional[str] = None


class UserAccount(NoPKModel, table=True):
    __tablename__ = "user_accounts"

    user_id: Optional[str] = None
    account_id: str = Field(primary_key=True)
