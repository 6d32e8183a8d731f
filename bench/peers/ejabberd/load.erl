%% Makes the accounts and rosters of a run in ejabberd's own tables, then says so by a file.
%% bench replaces the words between at signs; the text is one expression for erl -eval.
begin
    %% By default they are on the disk alone, which would be slower for it.
    [mnesia:change_table_copy_type(T, node(), disc_copies) || T <- [passwd, roster]],
    Users = @USERS@,
    Watched = @WATCHED@,
    Host = <<"load.example">>,
    Name = fun(N) -> <<"u", (integer_to_binary(N))/binary>> end,
    %% {passwd, {User, Server}, Password}, as ejabberd_auth_mnesia has it.
    [ok = mnesia:dirty_write({passwd, {Name(N), Host}, <<"pw">>}) || N <- lists:seq(0, Users - 1)],
    %% {roster, {User, Server, Jid}, {User, Server}, Jid, Name, Subscription, Ask, Groups, AskMessage, Xs}.
    Item = fun(Of, Contact, Subscription) ->
        Jid = {Name(Contact), Host, <<>>},
        ok = mnesia:dirty_write({roster, {Name(Of), Host, Jid}, {Name(Of), Host}, Jid, <<>>, Subscription,
            none, [], <<>>, []})
    end,
    [begin Item(A, B, from), Item(B, A, to) end
        || A <- lists:seq(0, Watched - 1), B <- lists:seq(Watched, Users - 1)],
    ok = file:write_file("@READY@", <<"ready\n">>)
end.
